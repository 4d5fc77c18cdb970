"""Losses by name, and of torch.nn, against torch.nn.functional on the known labels alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedjoint import Task
from fedjoint.errors import UserError
from fedjoint.model.loss import make_loss, per_example
from fedjoint.registry import registered

CLASSES, N = 4, 12
WEIGHTS = [0.5, 1.0, 2.0, 3.0]


def focal(output, y):
    """As its paper writes it, of classes in the second dimension."""
    p = output.softmax(1).gather(1, y[:, None])[:, 0]
    return -((1 - p) ** 2) * p.log()


def focal_labels(output, y):
    p = torch.where(y == 1, output.sigmoid(), 1 - output.sigmoid())
    return -((1 - p) ** 0.5) * p.log()


def weighted(output, y):
    return focal(output, y) * torch.tensor(WEIGHTS)[y]


def none(function, **options):
    return lambda output, y: function(output, y, reduction="none", **options)


#: name, options, kind of labels -> PyTorch's, of every place
ORACLES = [
    ("cross_entropy", {}, "whole", none(F.cross_entropy)),
    (
        "cross_entropy",
        {"label_smoothing": 0.2},
        "whole",
        none(F.cross_entropy, label_smoothing=0.2),
    ),
    (
        "cross_entropy",
        {"class_weights": WEIGHTS, "label_smoothing": 0.1},
        "whole",
        none(F.cross_entropy, weight=torch.tensor(WEIGHTS), label_smoothing=0.1),
    ),
    ("focal", {}, "whole", focal),
    ("focal", {"gamma": 0.0}, "whole", none(F.cross_entropy)),
    ("focal", {"class_weights": WEIGHTS}, "whole", weighted),
    ("focal", {"gamma": 0.5}, "labels", focal_labels),
    ("binary_cross_entropy", {}, "labels", none(F.binary_cross_entropy_with_logits)),
    (
        "binary_cross_entropy",
        {"positive_weights": WEIGHTS},
        "labels",
        none(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(WEIGHTS)),
    ),
    (
        "binary_cross_entropy",
        {"label_smoothing": 0.2},
        "labels",
        lambda out, y: F.binary_cross_entropy_with_logits(out, 0.8 * y + 0.1, reduction="none"),
    ),
    ("squared", {}, "real", none(F.mse_loss)),
    ("absolute", {}, "real", none(F.l1_loss)),
    ("huber", {"delta": 0.3}, "real", none(F.huber_loss, delta=0.3)),
]

FORMS = {"vector": (), "sequence": (5,), "map": (3, 2)}


def drawn(kind, places):
    """Return outputs with channels second, and labels, of which an example has none."""
    g = torch.Generator().manual_seed(0)
    output = torch.randn(N, CLASSES, *places, generator=g)
    if kind == "whole":
        y = torch.randint(-1, CLASSES, (N, *places), generator=g)
        y[0] = -1
        return output, y, y >= 0
    y = torch.randn(N, CLASSES, *places, generator=g)
    y = (y > 0).float() if kind == "labels" else y
    y[:, 1][torch.rand(N, *places, generator=g) < 0.3] = torch.nan
    y[0] = torch.nan
    return output, y, ~y.isnan().any(1)


def expected(oracle, kind, output, y, known):
    """Return the mean over the known places of each example, zero without."""
    found = torch.zeros(N)
    for n in range(N):
        if known[n].any():
            label = y[n : n + 1].clamp(min=0) if kind == "whole" else y[n : n + 1].nan_to_num()
            places = oracle(output[n : n + 1], label)
            places = places if kind == "whole" else places.mean(1)
            found[n] = places[0][known[n]].mean() if known[n].ndim else places[0]
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "options", "kind", "oracle"), ORACLES)
def test_it_is_pytorchs_of_the_known_places(name, options, kind, oracle, form):
    if (kind, form) in [("labels", "map"), ("labels", "sequence"), ("real", "sequence")]:
        pytest.skip("no kind of task has such labels")
    output, y, known = drawn(kind, FORMS[form])
    mine = output.clone().requires_grad_()
    like = output.clone().requires_grad_()
    loss = make_loss(name, options)
    found, there = loss(mine.movedim(1, -1) if form == "sequence" else mine, y)
    wanted = expected(oracle, kind, like, y, known)
    torch.testing.assert_close(found, wanted)
    assert there.tolist() == known.flatten(1).any(1).tolist() if known.ndim > 1 else known.tolist()
    grads = [torch.autograd.grad(v.sum(), of)[0] for v, of in ((found, mine), (wanted, like))]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(("name", "options", "kind", "_"), ORACLES)
def test_many_clients_at_once_have_what_each_has(name, options, kind, _):
    loss = make_loss(name, options)
    output, y, _ = drawn(kind, ())
    output, y = output.unflatten(0, (3, 4)), y.unflatten(0, (3, 4))
    together = torch.vmap(loss)(output, y)
    for client in range(3):
        for found, alone in zip(together, loss(output[client], y[client]), strict=True):
            torch.testing.assert_close(found[client], alone)


def test_an_example_that_is_certain_has_a_slope():
    output = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    loss, _ = make_loss("focal", {"gamma": 0.5})(output, torch.tensor([0]))
    (grad,) = torch.autograd.grad(loss.sum(), output)
    assert loss.item() == 0 and grad.isfinite().all()


@pytest.mark.parametrize(
    ("loss", "kind", "form"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), "whole", "vector"),
        (nn.CrossEntropyLoss(), "whole", "map"),
        (nn.CrossEntropyLoss(), "whole", "sequence"),
        (nn.SmoothL1Loss(), "real", "vector"),
        (nn.SmoothL1Loss(), "real", "map"),
    ],
)
def test_a_loss_of_torch_leaves_out_places_without_labels(loss, kind, form):
    output, y, known = drawn(kind, FORMS[form])
    found, there = per_example(loss)(output.movedim(1, -1) if form == "sequence" else output, y)
    each = type(loss)(
        reduction="none",
        **({"label_smoothing": 0.1} if form == "vector" and kind == "whole" else {}),
    )
    torch.testing.assert_close(found, expected(each, kind, output, y, known))
    assert not there[0] and not found[0]


def test_a_loss_of_torch_may_be_a_mean_over_the_targets_itself():
    output = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [float("nan")] * 3, [1.0, 1.0, 1.0]])
    found, there = per_example(nn.MultiLabelSoftMarginLoss())(output, y)
    # As the documentation of PyTorch has it, it is the mean of the labels' cross-entropies.
    by_label = F.binary_cross_entropy_with_logits(output, y.nan_to_num(), reduction="none")
    expected = torch.where(there > 0, by_label.mean(1), 0)
    torch.testing.assert_close(found, expected)
    assert there.tolist() == [True, True, False, True]


BAD = [
    ({"kind": "multiclass", "loss": "huber"}, "for this loss 'multiclass': allowed are"),
    ({"kind": "regression", "loss": "focal"}, "the loss of task 'a': unknown kind of task"),
    ({"kind": "multiclass", "loss": "focl"}, "unknown loss 'focl'.*did you mean 'focal'"),
    ({"kind": "detection", "size": (3,), "loss": "cross_entropy"}, "allowed are language, multi"),
    (
        {"kind": "multiclass", "loss": make_loss("focal", {"class_weights": [1.0, 2.0]})},
        "the loss of task 'a': it has 2 weights, and the task has 3 outputs",
    ),
]


@pytest.mark.parametrize(("given", "words"), BAD)
def test_a_loss_that_is_not_for_the_task_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        Task("a", outputs=3, **given)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {"class_weights": [0.0, 1.0]}),
        ("cross_entropy", {"class_weights": []}),
        ("cross_entropy", {"label_smoothing": 1.0}),
        ("focal", {"gamma": -1.0}),
        ("huber", {"delta": 0.0}),
    ],
)
def test_an_option_beyond_its_range_is_refused(name, options):
    with pytest.raises(UserError, match=f"option {next(iter(options))}"):
        make_loss(name, options)


def test_every_loss_is_here_or_with_the_boxes():
    assert {name for name, *_ in ORACLES} | {"centre_points"} == set(registered("losses"))
