"""Patterns of what is shared: what they choose, and what is refused."""

import pytest
import torch
from support import adapted

from fedjoint.config.load import check
from fedjoint.errors import UserError

DOWN = {"backbone.down.weight", "backbone.down.bias"}
UP = {"backbone.up.weight", "backbone.up.bias"}
NORM = {"backbone.norm.weight", "backbone.norm.bias"}
FROZEN = {"backbone.base.weight", "backbone.base.bias", "backbone.scale", "backbone.order"}


def model(*patterns, **more):
    settings = {"share": list(patterns)} if patterns else {}
    return adapted.problem(**more).model(check({"model": settings}))


@pytest.mark.parametrize(
    ("patterns", "shared"),
    [
        ([], DOWN | UP | NORM),
        (["*"], DOWN | UP | NORM),
        (["backbone.*"], DOWN | UP | NORM),
        (["backbone.*", "!*.norm.*"], DOWN | UP),
        (["*", "!backbone.up*", "!*bias"], {"backbone.down.weight", "backbone.norm.weight"}),
        (["*", "!*", "backbone.down.*"], DOWN),
        (["*.weight"], {n for n in DOWN | UP | NORM if n.endswith("weight")}),
        (["backbone.[du]*"], DOWN | UP),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_what_is_shared_and_what_is_kept(patterns, shared):
    joint = model(*patterns)
    assert set(joint.layout().shapes) == shared
    kept = (DOWN | UP | NORM) - shared
    assert set(joint.private(["side"])) == kept | {"heads.side.weight", "heads.side.bias"}
    assert set(joint.frozen()) == FROZEN


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (["backbone.upp.*"], "'backbone.upp.*' matches no tensor .* these are: backbone.down.w"),
        (["*", "!batch*"], "'!batch.' matches no tensor"),
        (["Backbone.*"], "'Backbone.*' matches no tensor"),
        (["heads.*"], "'heads.*' matches heads, which never leave .*model.heads = 'shared'"),
        (["*", "!heads.side.*"], "matches heads"),
        (["*", "backbone.base.*"], "'backbone.base..' matches frozen tensors alone"),
        (["!*.norm.*"], "shares no parameter: begin it with '\\*'"),
        (["*", "!*"], "shares no parameter"),
        ([""], "'' matches no tensor"),
    ],
    ids=str,
)
def test_patterns_that_are_refused(patterns, says):
    with pytest.raises(UserError, match=says):
        model(*patterns)


def test_no_pattern_at_all_is_refused():
    with pytest.raises(UserError, match="shares no parameter"):
        adapted.problem().model(check({"model": {"share": []}}))


@pytest.mark.parametrize(
    "backbone",
    [lambda: torch.nn.Flatten(), lambda: torch.nn.Linear(4, 8).requires_grad_(False)],
    ids=["no parameters", "all frozen"],
)
def test_a_backbone_that_does_not_train_is_refused(backbone):
    with pytest.raises(UserError, match=r"no parameter that is trained .*: set requires_grad"):
        model(backbone=backbone)
