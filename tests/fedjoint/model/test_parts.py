"""Parts of a backbone: what is common once, then what each group has, buffers last."""

import pytest
import torch

from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.parts import Parts

SMALL = Layout({"stem.w": (2, 3), "trunk.w": (2, 2), "trunk.mean": (2,)}, ("trunk.mean",))
LARGE = Layout(
    {"stem.w": (4,), "deep.w": (1,), "trunk.w": (2, 2), "trunk.mean": (2,)}, ("trunk.mean",)
)


def test_one_architecture_is_one_part_under_its_own_names():
    parts = Parts({"": SMALL})
    assert [(p.name, p.groups, p.layout) for p in parts.parts] == [("", ("",), SMALL)]
    assert parts.layout == SMALL


def test_what_is_common_is_there_once():
    parts = Parts({"small": SMALL, "large": LARGE}, ["trunk.*"])
    assert [(p.name, p.groups) for p in parts.parts] == [
        ("common", ("large", "small")),
        ("large", ("large",)),
        ("small", ("small",)),
    ]
    assert parts.layout.shapes == {
        "trunk.w": (2, 2),
        "groups.large.stem.w": (4,),
        "groups.large.deep.w": (1,),
        "groups.small.stem.w": (2, 3),
        "trunk.mean": (2,),
    }
    assert parts.layout.buffers == ("trunk.mean",)


def test_a_group_has_its_own_tensors_and_the_common_ones():
    parts = Parts({"small": SMALL, "large": LARGE}, ["trunk.*"])
    flat = torch.arange(float(parts.layout.size))
    own = parts.of("small", parts.layout.views(flat))
    assert list(own) == list(SMALL.shapes)
    assert own["trunk.w"].flatten().tolist() == [0, 1, 2, 3]
    assert own["stem.w"].flatten().tolist() == [9, 10, 11, 12, 13, 14]
    assert own["trunk.mean"].tolist() == [15, 16]


def test_a_part_s_columns_of_a_group_s_rows():
    parts = Parts({"small": SMALL, "large": LARGE}, ["trunk.w"])
    rows = torch.arange(20.0).view(2, 10)  # six numbers of the stem, then four of the trunk
    trunk = parts.parts[0].layout.parameters
    assert trunk.take(rows, SMALL.parameters).tolist() == [[6, 7, 8, 9], [16, 17, 18, 19]]


@pytest.mark.parametrize(
    ("patterns", "line"),
    [
        (["stem.*"], "'stem.w' is (4,) in group 'large' and (2, 3) in 'small'"),
        (["deep.*"], "'deep.*' matches nothing that group 'small' shares; it has stem.w"),
        (["*"], "'deep.w' is shared in group 'large' and not in 'small'"),
        (["trunk.*", "!*"], "leaves nothing in common"),
    ],
)
def test_what_is_not_common_is_named(patterns, line):
    with pytest.raises(UserError) as error:
        Parts({"small": SMALL, "large": LARGE}, patterns)
    assert line in str(error.value)


def test_a_parameter_of_one_group_is_no_buffer_of_another():
    other = Layout({"trunk.w": (2, 2), "trunk.mean": (2,)})
    with pytest.raises(UserError, match="a buffer in the other"):
        Parts({"small": SMALL, "other": other}, ["trunk.*"])
