"""Metrics pooled over clients against scikit-learn on all examples; losses against PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special
from sklearn import metrics as sk

from fedjoint.model.metric import Metric, make_metric
from fedjoint.model.tasks import KINDS

N, KNOWN = 90, 70


def labels(kind, g):
    """Labels of which the last are missing."""
    if kind == "multiclass":
        y = torch.randint(4, (N,), generator=g)
        y[KNOWN:] = -1
        return y
    y = torch.randn(N, 3, generator=g)
    if kind == "multilabel":
        y = (y > 0.3).float()
    y[KNOWN:, 1] = torch.nan  # one missing target leaves the example out
    return y


def softmax(out):
    return special.softmax(np.asarray(out, float), 1)


def calibration(y, p):
    """Return the expected calibration error as its paper writes it, bin by bin."""
    confidence, right = p.max(1), p.argmax(1) == y
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    return error


def one_against_all(score):
    """Return the mean over three classes or more of a score of each against all others."""

    def of(y, out):
        p = softmax(out)
        return np.mean([score(y == k, p[:, k]) for k in range(p.shape[1])])

    return of


ORACLES = {
    "accuracy": ("multiclass", 4, lambda y, out: sk.accuracy_score(y, out.argmax(1))),
    "micro_f1": ("multilabel", 3, lambda y, out: sk.f1_score(y, out > 0, average="micro")),
    "r2": ("regression", 3, lambda y, out: sk.r2_score(y, out, multioutput="variance_weighted")),
    "macro_f1": (
        "multiclass",
        4,
        lambda y, out: sk.f1_score(y, out.argmax(1), average="macro", zero_division=0),
    ),
    "balanced_accuracy": (
        "multiclass",
        4,
        lambda y, out: sk.balanced_accuracy_score(y, out.argmax(1)),
    ),
    "mae": ("regression", 3, sk.mean_absolute_error),
    "cross_entropy": (
        "multiclass",
        4,
        lambda y, out: sk.log_loss(y, softmax(out), labels=range(4)),
    ),
    "calibration_error": ("multiclass", 4, lambda y, out: calibration(y, softmax(out))),
    "rmse": ("regression", 3, lambda y, out: np.sqrt(sk.mean_squared_error(y, out))),
    "miou": (
        "multiclass",
        4,
        lambda y, out: sk.jaccard_score(y, out.argmax(1), average="macro"),
    ),
    "perplexity": (
        "multiclass",
        4,
        lambda y, out: np.exp(sk.log_loss(y, softmax(out), labels=range(4))),
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_the_pooled_metric_is_scikit_learns_of_all_known_examples(name):
    kind, width, oracle = ORACLES[name]
    g = torch.Generator().manual_seed(3)
    y, out = labels(kind, g), torch.randn(N, width, generator=g)
    expected = oracle(y[:KNOWN].numpy(), out[:KNOWN].numpy())
    out[KNOWN:] = torch.nan  # a model may be undefined where there is no label
    metric = make_metric(name, {})
    clients = zip(out.split(13), y.split(13), strict=True)
    pooled = sum(metric.statistics(o, part).sum(0) for o, part in clients)
    assert metric.value(pooled) == pytest.approx(expected)


@pytest.mark.parametrize("name", ORACLES)
def test_the_metric_of_each_client_is_scikit_learns(name):
    kind, width, oracle = ORACLES[name]
    g = torch.Generator().manual_seed(5)
    y, out = labels(kind, g), torch.randn(N, width, generator=g)
    metric, parts = make_metric(name, {}), [slice(0, 20), slice(20, 70), slice(80, 90)]
    sums = torch.stack([metric.statistics(out[part], y[part]).sum(0) for part in parts])
    expected = [oracle(y[part].numpy(), out[part].numpy()) for part in parts[:2]]
    assert metric.each(sums)[:2].tolist() == pytest.approx(expected)
    assert metric.each(sums)[2].isnan()  # no label at all
    one_by_one = replace(metric, rows=None).each(sums)
    torch.testing.assert_close(metric.each(sums), one_by_one, equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "width", "oracle"),
    [
        ("multiclass", 4, F.cross_entropy),
        ("multilabel", 3, F.binary_cross_entropy_with_logits),
        ("regression", 3, F.mse_loss),
    ],
)
def test_the_loss_is_pytorchs_of_the_known_examples(kind, width, oracle):
    g = torch.Generator().manual_seed(4)
    y, out = labels(kind, g), torch.randn(N, width, generator=g)
    out.requires_grad_()
    loss, known = KINDS[kind].loss(out, y)
    assert known.sum() == KNOWN and not loss[KNOWN:].any()
    mean, expected = loss.sum() / known.sum(), oracle(out[:KNOWN], y[:KNOWN])
    torch.testing.assert_close(mean, expected)
    (found,), (like,) = (torch.autograd.grad(v, out) for v in (mean, expected))
    torch.testing.assert_close(found, like)
    undefined = out.detach().clone()
    undefined[KNOWN:] = torch.nan
    assert KINDS[kind].loss(undefined, y)[0].sum().isfinite()


def test_macro_f1_of_labels_is_scikit_learns():
    g = torch.Generator().manual_seed(3)
    y, out = labels("multilabel", g), torch.randn(N, 3, generator=g)
    expected = sk.f1_score(y[:KNOWN].numpy(), (out[:KNOWN] > 0).numpy(), average="macro")
    metric = make_metric("macro_f1", {})
    assert metric.value(metric.statistics(out, y).sum(0)) == pytest.approx(expected)


#: metric of places of a map or a sequence -> labels of places, outputs and the oracle of all known
PLACES = [name for name, (kind, *_) in ORACLES.items() if kind != "multilabel"]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("form", ["map", "sequence"])
def test_of_places_it_is_scikit_learns_of_all_that_are_known(name, form):
    kind, width, oracle = ORACLES[name]
    if kind == "regression" and form == "sequence":
        pytest.skip("there are no targets of sequences")
    g = torch.Generator().manual_seed(7)
    examples, places = (6, 5), {"map": (3, 4), "sequence": (9,)}[form]
    if kind == "multiclass":
        y = torch.randint(-1, 4, (*examples, *places), generator=g)
        y[0, 0] = -1  # an example that nobody has labelled
        known = y >= 0
    else:
        y = torch.randn(*examples, width, *places, generator=g)
        y[:, :, 1][torch.rand(*examples, *places, generator=g) < 0.3] = torch.nan
        known = ~y.isnan().any(2)
    out = torch.randn(*examples, *places, width, generator=g)
    flat = [out[known].numpy(), (y if kind == "multiclass" else y.movedim(2, -1))[known].numpy()]
    raw = out if form == "sequence" else out.movedim(-1, 2)
    metric = make_metric(name, {})
    sums = metric.summed(raw, y).sum(0)
    # The first statistic counts examples, which is what a node with few of them goes by.
    assert sums[0] == known.flatten(2).any(2).sum()
    assert metric.value(sums) == pytest.approx(oracle(flat[1], flat[0]))


SCORED = {
    "auroc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
}


def in_ranges(out, bins=1024):
    """Return logits such that those of one range of 1/32 are alike."""
    return (out * bins / 32).floor() / (bins / 32)


def scored(g, kind, n=1500):
    """Return labels that depend on the outputs, and these; the last have no label."""
    if kind == "multilabel":
        out = 2 * torch.randn(n, 3, generator=g)
        y = (torch.rand(n, 3, generator=g) < (out - 1.5).sigmoid()).float()
        y[-50:] = torch.nan
        return y, out
    classes = {"two": 2, "four": 4}[kind]
    out = 2 * torch.randn(n, classes, generator=g)
    y = torch.multinomial(out.softmax(1), 1, generator=g)[:, 0]
    y[-50:] = -1
    return y, out


def exact(name, kind, y, out):
    """Return scikit-learn's score of the known."""
    y, out = y[:-50].numpy(), out[:-50].numpy()
    if kind == "multilabel":
        return SCORED[name](y, out, average="macro")
    if kind == "two":
        return SCORED[name](y, out[:, 1] - out[:, 0])
    return one_against_all(SCORED[name])(y, out)


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("kind", ["two", "four", "multilabel"])
def test_what_depends_on_the_order_of_scores_is_scikit_learns_but_for_ranges(name, kind):
    y, out = scored(torch.Generator().manual_seed(1), kind)
    metric, fine = make_metric(name, {}), make_metric(name, {"bins": 65_536})
    clients = [slice(0, 400), slice(400, 410), slice(410, None)]
    for each, far in ((metric, 0.001 if name == "auroc" else 0.005), (fine, 1e-4)):
        sums = sum(each.summed(out[None, part], y[None, part])[0] for part in clients)
        assert each.value(sums) == pytest.approx(exact(name, kind, y, out), abs=far)
        assert sums[0] == len(y) - 50


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("bins", [16, 1024])
def test_scores_of_one_range_tie_as_they_do_for_scikit_learn(name, bins):
    y, out = scored(torch.Generator().manual_seed(2), "multilabel")
    metric = make_metric(name, {"bins": bins})
    found = metric.value(metric.summed(out[None], y[None])[0])
    alike = in_ranges(out, bins)
    assert found == pytest.approx(exact(name, "multilabel", y, alike), abs=1e-12)


@pytest.mark.parametrize("name", SCORED)
def test_statistics_of_every_example_add_up_to_the_sums(name):
    y, out = scored(torch.Generator().manual_seed(3), "four", 60)
    metric = make_metric(name, {"bins": 32})
    torch.testing.assert_close(
        metric.statistics(out, y).sum(0), metric.summed(out[None], y[None])[0]
    )


@pytest.mark.parametrize("name", SCORED)
def test_a_class_that_cannot_be_told_apart_is_left_out(name):
    out = torch.tensor([[3.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.5, 2.0, 1.0]])
    metric = make_metric(name, {})
    assert metric.value(metric.summed(out[None], torch.tensor([[0, 1, 1]]))[0]) == 1.0
    assert np.isnan(metric.value(metric.summed(out[None], torch.full((1, 3), -1))[0]))


def test_the_sureness_of_a_rare_class_is_told_apart():
    out = torch.tensor([[0.0, -9.0], [0.0, -8.0], [0.0, -7.9], [0.0, -15.0]])
    metric = make_metric("auroc", {})
    assert metric.value(metric.summed(out[None], torch.tensor([[0, 0, 1, 0]]))[0]) == 1.0


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_a_metric_that_counts_every_row_counts_those_with_a_label(kind):
    y = labels(kind, torch.Generator().manual_seed(0))
    metric = Metric("rows", lambda output, y: torch.ones(len(y), 2) / (1 - output[:, :1]), float)
    output = torch.zeros(2, N // 2, 3)
    output[1, KNOWN - N // 2 :] = 1.0  # so that what has no label is infinite
    found = metric.summed(output, y.unflatten(0, (2, N // 2)))
    assert found.tolist() == [[N // 2] * 2, [KNOWN - N // 2] * 2]
