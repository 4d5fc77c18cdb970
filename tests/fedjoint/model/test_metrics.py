"""Metrics pooled over clients against scikit-learn on all examples; losses against PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special
from sklearn import metrics as sk

from fedjoint.model.metric import make_metric
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
    loss, known = KINDS[kind][0](out, y)
    assert known.sum() == KNOWN and not loss[KNOWN:].any()
    mean, expected = loss.sum() / known.sum(), oracle(out[:KNOWN], y[:KNOWN])
    torch.testing.assert_close(mean, expected)
    (found,), (like,) = (torch.autograd.grad(v, out) for v in (mean, expected))
    torch.testing.assert_close(found, like)
    undefined = out.detach().clone()
    undefined[KNOWN:] = torch.nan
    assert KINDS[kind][0](undefined, y)[0].sum().isfinite()


def test_macro_f1_of_labels_is_scikit_learns():
    g = torch.Generator().manual_seed(3)
    y, out = labels("multilabel", g), torch.randn(N, 3, generator=g)
    expected = sk.f1_score(y[:KNOWN].numpy(), (out[:KNOWN] > 0).numpy(), average="macro")
    metric = make_metric("macro_f1", {})
    assert metric.value(metric.statistics(out, y).sum(0)) == pytest.approx(expected)
