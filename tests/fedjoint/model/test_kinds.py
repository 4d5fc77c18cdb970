"""What each kind of task refuses, in one line, before the first round; and what heads it has."""

import numpy as np
import pytest
import torch
from support.people import Unequal
from torch import nn

import fedjoint
from fedjoint import Examples, Problem, Task
from fedjoint.errors import UserError
from fedjoint.model.heads import MapHead
from fedjoint.model.tasks import KINDS

SIDE, LENGTH = 6, 5


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        return self.layer(x)


class Vector(Image):
    def forward(self, x):
        return super().forward(x).mean((2, 3))


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(SIDE, 4)

    def forward(self, x):
        return self.layer(x[:, 0])  # one position for each row


class Both(Image):
    def forward(self, x):
        maps = super().forward(x)
        return {"map": maps, "vector": maps.mean((2, 3)), "rows": maps.mean(3).movedim(1, 2)}


class TwoMaps(Image):
    def forward(self, x):
        return {"one": super().forward(x), "other": super().forward(x)}


def label(shape, value=0, dtype=torch.int64):
    return lambda n: torch.full((n, *shape), value, dtype=dtype)


def box(*numbers):
    return lambda n: torch.tensor([[[*map(float, numbers)]]]).expand(n, 1, 5).clone()


SEGMENTATION = Task("a", "segmentation", 3, size=(SIDE, SIDE))
DEPTH = Task("a", "dense_regression", 1, size=(SIDE, SIDE))
BOXES = Task("a", "detection", 2, size=(1,))
TOKENS = Task("a", "tokens", 3, size=(SIDE,))
GOOD = {
    "segmentation": (SEGMENTATION, label((SIDE, SIDE)), Image),
    "dense_regression": (DEPTH, label((1, SIDE, SIDE), 1.5, torch.float32), Image),
    "detection": (BOXES, box(1, 0, 0, 0.5, 0.5), Image),
    "tokens": (TOKENS, label((SIDE,)), Sequence),
    "language": (Task("a", "language", 9, size=(SIDE,)), label((SIDE,)), Sequence),
    "preference": (Task("a", "preference", SIDE), label(()), Sequence),
    "multiclass": (Task("a", "multiclass", 3), label(()), Vector),
    "multilabel": (Task("a", "multilabel", 3), label((3,), 1.0, torch.float32), Vector),
    "regression": (
        Task("a", "regression", 3, metric="rmse"),
        label((3,), 1.0, torch.float32),
        Vector,
    ),
}


def run(task, labels, backbone, folder, rounds=1):
    def examples(count, rng):
        return Examples(torch.randn(count, 1, SIDE, SIDE, generator=rng), {"a": labels(count)})

    problem = Problem([task], backbone, Unequal([task], examples, 0), torch.zeros(1, 1, SIDE, SIDE))
    settings = {"rounds": rounds, "engine": "inline", "output": {"dir": str(folder)}}
    return fedjoint.simulate(settings, problem)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_trains(kind, tmp_path):
    (record,) = run(*GOOD[kind], tmp_path).records
    assert record.kept is None and not record.clients.failed and record.fallback is None
    assert np.isfinite(record.objective)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("backbone", [Image, Sequence, Both])
def test_what_needs_a_vector_takes_the_mean_of_places(kind, backbone, tmp_path):
    task, labels, _ = GOOD[kind]
    (record,) = run(task, labels, backbone, tmp_path).records
    assert record.kept is None and np.isfinite(record.objective)


def test_a_head_of_ones_own_is_told_the_shape_of_what_it_gets():
    told = []

    def head(features):
        told.append(features)
        return nn.Identity()

    for backbone in (Vector, Sequence, Image, Both):
        task = Task("a", "multiclass", 4, head=head)
        data = Unequal([task], lambda n, rng: Examples(torch.zeros(n, 1, SIDE, SIDE), {}), 0)
        Problem([task], backbone, data, torch.zeros(1, 1, SIDE, SIDE)).model(fedjoint.Config())
    assert told[:3] == [4, (SIDE, 4), (4, SIDE, SIDE)]
    assert told[3] == {"map": (4, SIDE, SIDE), "vector": 4, "rows": (SIDE, 4)}


WRONG = {
    "another height": (
        "segmentation",
        label((SIDE + 1, SIDE)),
        r"client 0.*'a': labels are .*\[7, 7, 6\].*\[7, 6, 6\]",
    ),
    "a class too many": (
        "segmentation",
        label((SIDE, SIDE), 3),
        "client 0, task 'a': class 3 of 3",
    ),
    "below missing": ("segmentation", label((SIDE, SIDE), -2), "class -2; number classes from 0"),
    "real classes": ("tokens", label((SIDE,), 0.0, torch.float32), "labels are torch.float32"),
    "a token too many": ("language", label((SIDE,), 9), "class 9 of 9"),
    "another length": ("tokens", label((SIDE - 1,)), r"labels are torch.int64 \[7, 5\]"),
    "an item too many": ("preference", label((), SIDE), f"class {SIDE} of {SIDE}"),
    "infinite depth": (
        "dense_regression",
        label((1, SIDE, SIDE), torch.inf, torch.float32),
        "a label is infinite",
    ),
    "no channel": ("dense_regression", label((SIDE, SIDE), 1.0, torch.float32), "labels are"),
    "half a label": ("multilabel", label((3,), 0.5, torch.float32), "a label is 0.5; give 0, 1,"),
    "a box in pixels": ("detection", box(0, 1, 1, 20, 20), "corners 1, 1, 20, 20: give left, top"),
    "a box of size 0": ("detection", box(0, 0.5, 0.5, 0.5, 0.5), "corners 0.5, 0.5, 0.5, 0.5"),
    "a box the wrong way": ("detection", box(0, 0.5, 0.5, 0.1, 0.9), "give left, top, right"),
    "a box of no class": ("detection", box(2, 0, 0, 1, 1), "a box has the class 2 of 2"),
    "a box of class -3": ("detection", box(-3, 0, 0, 1, 1), "ignore regions by class -2"),
    "a region of size 0": ("detection", box(-2, 0.5, 0.5, 0.5, 0.5), "corners 0.5, 0.5, 0.5, 0.5"),
    "a box of half a class": ("detection", box(0.5, 0, 0, 1, 1), "a box has the class 0.5 of 2"),
}


@pytest.mark.parametrize("what", WRONG)
def test_labels_that_do_not_fit_are_refused_by_client_and_task(what, tmp_path):
    kind, labels, words = WRONG[what]
    task, _, backbone = GOOD[kind]
    with pytest.raises(UserError, match=words) as error:
        run(task, labels, backbone, tmp_path)
    assert "\n" not in str(error.value) and "client 0" in str(error.value)
    assert not any(path.read_text() for path in tmp_path.glob("*/metrics.jsonl"))


NO_HEAD = {
    "a map of a vector": (
        SEGMENTATION,
        Vector,
        r"the head of task 'a': the backbone makes \[4\] of an input, and it takes \[channels, h",
    ),
    "words of a map": (TOKENS, Image, r"makes \[4, 6, 6\] of an input, and it takes \[length"),
    "boxes of a sequence": (BOXES, Sequence, "and it takes .channels, height, width.: take ano"),
    "items of a vector": (Task("a", "preference", 2), Vector, "it takes .length, features."),
    "items too few": (Task("a", "preference", 2), Sequence, "features of 6 items, and there are 2"),
    "too short": (Task("a", "tokens", 3, size=(9,)), Sequence, "of 6 positions, and labels have 9"),
    "one of two": (SEGMENTATION, TwoMaps, "one and other of the backbone would do: give the task"),
    "a head of another size": (
        Task("a", "segmentation", 3, size=(SIDE, SIDE), head=lambda f: nn.Conv2d(f[0], 3, 3)),
        Image,
        r"the head of task 'a' gives \(7, 3, 4, 4\), and the task needs \(7, 3, 6, 6\)",
    ),
    "a head of other channels": (
        Task("a", "detection", 2, size=(1,), head=lambda f: nn.Conv2d(f[0], 3, 3)),
        Image,
        r"gives \(7, 3, 4, 4\), and the task needs \(7, 6, any, any\)",
    ),
    "a head that fails": (
        Task("a", "segmentation", 3, size=(SIDE, SIDE), head=lambda f: nn.Linear(f, 3)),
        Image,
        "the head of task 'a' cannot be built: TypeError",
    ),
}


@pytest.mark.parametrize("what", NO_HEAD)
def test_a_head_that_does_not_fit_is_refused_by_task(what, tmp_path):
    task, backbone, words = NO_HEAD[what]
    labels = box(0, 0, 0, 1, 1) if task.kind == "detection" else label(task.missing(0).shape[1:])
    with pytest.raises(UserError, match=words) as error:
        run(task, labels, backbone, tmp_path)
    assert "\n" not in str(error.value)
    assert not any(path.read_text() for path in tmp_path.glob("*/metrics.jsonl"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"kind": "segmentation", "outputs": 3},
            r"its size is \(\): give size = \(height, width\)",
        ),
        ({"kind": "tokens", "outputs": 3, "size": 5}, r"its size is 5: give size = \(length,\)"),
        ({"kind": "tokens", "outputs": 3, "size": (0,)}, r"its size is \(0,\): give size"),
        ({"kind": "detection", "outputs": 3, "size": (2, 5)}, r"give size = \(boxes,\)"),
        ({"kind": "multiclass", "outputs": 3, "size": (2,)}, "which has no size: leave it out"),
        ({"kind": "multiclass", "outputs": 3, "size": 5}, "which has no size: leave it out"),
        ({"kind": "segmentation", "outputs": 1, "size": (2, 2)}, "allowed are 2 or more"),
        ({"kind": "tokens", "outputs": 3, "size": (2,), "scale": "own"}, "only a regression's"),
        ({"kind": "segmented", "outputs": 3}, "did you mean 'segmentation'"),
        ({"kind": "multiclass", "outputs": 3, "metric": []}, "metric of task 'a' is list: give"),
        ({"kind": "multiclass", "outputs": 3, "metric": ["accuracy"] * 2}, "a metric twice: acc"),
        (
            {"kind": "multiclass", "outputs": 3, "metric": ["accuracy", "rmse"]},
            "unknown kind of task 'a' for the metric 'RMSE' 'multiclass': allowed are dense_reg",
        ),
        ({"kind": "regression", "outputs": 3, "metric": "auroc"}, "for the metric 'AUROC' 'regr"),
        (
            {"kind": "multiclass", "outputs": 3, "metric": {"name": "auroc", "bins": 3}},
            "the metric of task 'a' is .*: write {'name': ..., 'options': {...}}",
        ),
        (
            {"kind": "multiclass", "outputs": 3, "loss": {"name": "focal", "options": {"g": 3}}},
            "unknown option of loss focal 'g': allowed are class_weights, gamma",
        ),
        ({"kind": "multiclass", "outputs": 3, "metric": ["accuracy", 3]}, "is int: give a"),
    ],
)
def test_a_task_that_is_none_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        Task("a", **given)


@pytest.mark.parametrize("size", [(12, 9), (4, 3), (2, 5), (1, 1)])
def test_a_map_is_enlarged_as_pytorch_does(size):
    head = MapHead((2, 4, 3), 5, size)
    x = torch.randn(6, 2, 4, 3)
    at_places = nn.functional.conv2d(x, head.weight[..., None, None], head.bias)
    wanted = nn.functional.interpolate(at_places, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(x), wanted)
    assert head.state_dict().keys() == {"weight", "bias"}


def test_the_next_token_is_the_one_after_but_for_padding():
    ids = torch.tensor([[4, 5, 6, 0, 0], [7, 8, 9, 1, 2]])
    assert fedjoint.next_tokens(ids).tolist() == [[5, 6, 0, 0, -1], [8, 9, 1, 2, -1]]
    padded = [[5, 6, -1, -1, -1], [8, 9, 1, 2, -1]]
    assert fedjoint.next_tokens(ids, padding=0).tolist() == padded
    assert ids[0].tolist() == [4, 5, 6, 0, 0]


def test_an_item_has_the_features_of_its_own():
    layer = nn.Linear(3, 2)
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(fedjoint.EachItem(layer)(x), layer(x))

    class Named(nn.Module):
        def forward(self, x):
            return {"sum": x["a"] + x["b"], "a": x["a"][:, 0]}

    found = fedjoint.EachItem(Named())({"a": x, "b": 2 * x})
    torch.testing.assert_close(found["sum"], 3 * x)
    torch.testing.assert_close(found["a"], x[..., 0])
