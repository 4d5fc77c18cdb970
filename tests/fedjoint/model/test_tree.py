"""Inputs that are no tensor and no flat dict of tensors are refused in one line that says why."""

import re

import pytest
import torch

from fedjoint.errors import UserError
from fedjoint.model.tree import cat, check_tree, count, each, fitted, form, named, nbytes

IDS, MASK = torch.ones(3, 5, dtype=torch.int64), torch.ones(3, 5)
EXAMPLE = {"ids": IDS[:1], "mask": MASK[:1]}

NO_TREE = {
    "empty": ({}, "are an empty dict: give a tensor, or a dict of named tensors"),
    "numbers": ({0: IDS}, "have the key 0: name tensors by words"),
    "no name": ({"": IDS}, "have the key '': name tensors by words"),
    "a line break": ({"i\n": IDS}, r"have the key 'i\n': name tensors by words"),
    "an array": (IDS.numpy(), "are of type numpy.ndarray: give tensors"),
    "a list": ([IDS, MASK], "are of type list: give tensors"),
    "nested": ({"ids": {"left": IDS}}, "'ids', are of type dict: give tensors"),
    "text": ({"ids": IDS, "words": ["a", "b", "c"]}, "'words', are of type list: give tensors"),
    "none": ({"ids": IDS, "mask": None}, "'mask', are of type NoneType: give tensors"),
    "one number": ({"ids": torch.tensor(1)}, "'ids', are a single number: give one row for each"),
    "rows": ({"ids": IDS, "mask": MASK[:2]}, "differ in the number of examples: 'ids' 3, 'mask' 2"),
}


@pytest.mark.parametrize("case", NO_TREE)
def test_what_is_no_input_is_refused(case):
    x, words = NO_TREE[case]
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        check_tree(x, "client 3, train: its inputs")
    assert str(caught.value).startswith("client 3, train: its inputs") and "\n" not in str(
        caught.value
    )


UNLIKE = {
    "a tensor": (IDS, "and the model takes a dict of 'ids' (5,) int64, 'mask' (5,) float32: give"),
    "missing": ({"ids": IDS}, "are a dict of 'ids' (5,) int64, and the model takes .*: add 'mask'"),
    "surplus": ({**EXAMPLE, "types": IDS[:1]}, "leave out 'types'"),
    "both": ({"ids": IDS, "types": IDS}, "add 'mask', and leave out 'types'"),
    "length": ({"ids": IDS, "mask": torch.ones(3, 4)}, "'mask', are torch.float32 [4], and the"),
    "type": ({"ids": IDS.float(), "mask": MASK}, "'ids', are torch.float32 [5], and the model"),
    "undefined": ({"ids": IDS, "mask": MASK * torch.nan}, "'mask': example 0 is not finite"),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_inputs_unlike_the_example_are_refused(case):
    x, words = UNLIKE[case]
    pattern = ".*".join(re.escape(part) for part in words.split(".*"))
    with pytest.raises(UserError, match=pattern):
        fitted(x, EXAMPLE, "client 3, train inputs")


def test_a_dict_where_a_tensor_is_wanted_is_refused():
    with pytest.raises(UserError, match="takes \\(5,\\) int64: give every client the same kind"):
        fitted(EXAMPLE, IDS[:1], "client 3, train inputs")


def test_names_come_in_the_order_of_the_example():
    assert list(fitted({"mask": MASK, "ids": IDS}, EXAMPLE, "inputs")) == ["ids", "mask"]


def test_a_tensor_and_a_dict_are_handled_alike():
    both = {"ids": IDS, "mask": MASK}
    assert count(both) == count(IDS) == 3
    assert nbytes(both) == 15 * 8 + 15 * 4 and nbytes(IDS) == 15 * 8
    assert named(IDS)[""] is IDS and named(both) is both
    assert count(cat([IDS, IDS])) == 6 and cat([both, both])["mask"].shape == (6, 5)
    assert each(torch.add, both, both)["ids"].sum() == 30
    assert form(IDS) == "(5,) int64"
