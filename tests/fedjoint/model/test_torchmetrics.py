"""Metrics of torchmetrics by name: pooled over clients what the package says of all examples."""

import pytest
import torch

from fedjoint.errors import UserError
from fedjoint.model.metric import make_metric

torchmetrics = pytest.importorskip("torchmetrics")

N, KNOWN = 60, 50
CLASSES = {"num_classes": 4}


def drawn(kind):
    g = torch.Generator().manual_seed(0)
    if kind == "classes":
        y, out = torch.randint(4, (N,), generator=g), torch.randn(N, 4, generator=g)
    elif kind == "two":
        y, out = torch.randint(2, (N,), generator=g), torch.randn(N, 2, generator=g)
    else:
        width = 1 if kind == "number" else 3
        y, out = torch.randn(N, width, generator=g), torch.randn(N, width, generator=g)
        y = (y > 0).float() if kind == "labels" else y
    y[KNOWN:] = torch.nan if y.is_floating_point() else -1
    return y, out


#: kind of labels, name, options
METRICS = [
    ("classes", "MulticlassAccuracy", {**CLASSES, "average": "macro"}),
    ("classes", "MulticlassCohenKappa", CLASSES),
    ("classes", "MulticlassMatthewsCorrCoef", CLASSES),
    ("classes", "MulticlassAUROC", {**CLASSES, "thresholds": 50}),
    ("two", "BinaryF1Score", {}),
    ("two", "BinaryAUROC", {"thresholds": 20}),
    ("labels", "MultilabelF1Score", {"num_labels": 3}),
    ("number", "MeanAbsolutePercentageError", {}),
    ("numbers", "MeanSquaredError", {"squared": False}),
    ("number", "R2Score", {}),
]


def expected(kind, name, options, y, out):
    """Return what the package says of the known, all at once."""
    metric = getattr(torchmetrics, name, None) or getattr(torchmetrics.classification, name)
    metric, y, out = metric(**options), y[:KNOWN], out[:KNOWN].double()
    if kind in ("classes", "two"):
        out = out.softmax(1)
        out = out[:, 1] if kind == "two" else out
    elif kind == "labels":
        out, y = out.sigmoid(), y.long()
    elif kind == "number":
        out, y = out[:, 0], y[:, 0]
    return float(metric(out, y))


@pytest.mark.parametrize(("kind", "name", "options"), METRICS)
def test_it_is_the_packages_of_all_known_examples(kind, name, options, recwarn):
    y, out = drawn(kind)
    metric = make_metric("torchmetrics", {"name": name, "options": options})
    wanted = expected(kind, name, options, y, out)
    clients = zip(out.split(13), y.split(13), strict=True)
    sums = sum(metric.summed(o[None], part[None])[0] for o, part in clients)
    assert sums[0] == KNOWN
    assert metric.value(sums) == pytest.approx(wanted, rel=1e-5)
    assert metric.value(metric.statistics(out, y).sum(0)) == pytest.approx(wanted, rel=1e-5)
    none = metric.summed(out[None, KNOWN:], y[None, KNOWN:])[0]
    assert metric.each(torch.stack([sums, none])).isnan().tolist() == [False, True]
    assert not [w for w in recwarn if "compute" in str(w.message)]


def test_of_places_it_is_the_packages_of_all_known_places():
    g = torch.Generator().manual_seed(1)
    y, out = torch.randint(-1, 4, (8, 3, 5), generator=g), torch.randn(8, 4, 3, 5, generator=g)
    metric = make_metric("torchmetrics", {"name": "MulticlassF1Score", "options": CLASSES})
    found = metric.value(metric.summed(out[None], y[None])[0])
    oracle = torchmetrics.classification.MulticlassF1Score(**CLASSES, ignore_index=-1)
    assert found == pytest.approx(float(oracle(out, y)), rel=1e-5)


def test_the_direction_is_the_packages():
    up = make_metric("torchmetrics", {"name": "MulticlassAccuracy", "options": CLASSES})
    assert up.higher_is_better
    assert not make_metric("torchmetrics", {"name": "MeanAbsoluteError"}).higher_is_better


BAD = [
    (
        {"name": "MulticlassAUROC", "options": CLASSES},
        "cannot be added up over clients, as its 'pr",
    ),
    ({"name": "PearsonCorrCoef"}, "cannot be added up over clients, as its 'mean_x' is no sum"),
    ({"name": "MaxMetric"}, "cannot be added up over clients"),
    (
        {"name": "MulticlasAccuracy"},
        "has no metric 'MulticlasAccuracy'; did you mean 'MulticlassAcc",
    ),
    ({"name": "MulticlassAccuracy"}, "torchmetrics MulticlassAccuracy: ValueError: .*num_classes"),
    ({"name": "MulticlassAccuracy", "options": {"num_classes": -1}}, "MulticlassAccuracy: Value"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_what_cannot_be_added_up_or_made_is_refused(options, words):
    with pytest.raises(UserError, match=words) as error:
        make_metric("torchmetrics", options)
    assert "\n" not in str(error.value)


def test_states_that_grow_are_refused():
    metric, (y, out) = make_metric("torchmetrics", {"name": "R2Score"}), drawn("numbers")
    with pytest.raises(UserError, match="grows with the number of targets: give each target a t"):
        metric.summed(out[None], y[None])


def test_several_numbers_are_none():
    options = {"name": "MulticlassAccuracy", "options": {**CLASSES, "average": "none"}}
    metric, (y, out) = make_metric("torchmetrics", options), drawn("classes")
    with pytest.raises(UserError, match="gives several numbers: have it average them"):
        metric.value(metric.summed(out[None], y[None])[0])
