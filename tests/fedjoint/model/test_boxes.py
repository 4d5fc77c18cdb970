"""Boxes: what a head says of them, its loss in closed form, and average precision by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from fedjoint.model.boxes import decode, overlaps
from fedjoint.model.loss import make_loss
from fedjoint.model.metric import make_metric

SIDE, CLASSES = 8, 2


def grid(*boxes, sure=4.0):
    """Return the output ``[1, classes + 4, 8, 8]`` of a head that has found these boxes."""
    output = torch.zeros(1, CLASSES + 4, SIDE, SIDE)
    output[:, :CLASSES] = -9
    for number, (kind, left, top, right, bottom) in enumerate(boxes):
        x, y = (left + right) / 2 * SIDE, (top + bottom) / 2 * SIDE
        column, row = min(int(x), SIDE - 1), min(int(y), SIDE - 1)
        output[0, kind, row, column] = sure - number
        size = [(right - left) * SIDE, (bottom - top) * SIDE]
        output[0, CLASSES:, row, column] = torch.tensor([x - column, y - row, *size])
    return output


SOME = [(0, 0.1, 0.2, 0.5, 0.9), (1, 0.5, 0.0, 1.0, 0.25), (1, 0.9, 0.9, 1.0, 1.0)]


def test_boxes_are_read_from_the_grid_as_they_were_written():
    found = decode(grid(*SOME), 3)
    assert found.classes.tolist() == [[0, 1, 1]]
    torch.testing.assert_close(found.corners[0], torch.tensor([box[1:] for box in SOME]))
    torch.testing.assert_close(found.scores[0], torch.tensor([4.0, 3.0, 2.0]).sigmoid())


def test_overlap_is_intersection_over_union():
    one = torch.tensor([[[0.0, 0.0, 0.5, 0.5]]])
    others = torch.tensor(
        [[[0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0]]]
    )
    torch.testing.assert_close(overlaps(one, others)[0, 0], torch.tensor([1 / 3, 0, 1, 0]))


def labels(*images, most=4):
    y = torch.full((len(images), most, 5), -1.0)
    for image, boxes in zip(y, images, strict=True):
        if boxes is None:
            image[:] = torch.nan
        for place, box in enumerate(boxes or ()):
            image[place] = torch.tensor(box)
    return y


def test_the_loss_of_a_perfect_and_sure_answer_is_zero():
    loss, known = make_loss("centre_points", {})(grid(*SOME[:2], sure=30.0), labels(SOME[:2]))
    assert known.tolist() == [True] and loss.item() == pytest.approx(0, abs=1e-6)


def test_the_loss_adds_up_heat_offsets_and_sizes_of_each_box():
    output = grid(SOME[0]).double()
    logit = float(output[0, 0].max())
    row, column = divmod(int(output[0, 0].argmax()), SIDE)
    output[0, CLASSES:, row, column] += torch.tensor([0.1, -0.2, 1.0, 2.0])
    options = {"offset_weight": 3.0, "size_weight": 0.5}
    both = make_loss("centre_points", options)(output, labels(SOME[:1]))[0].item()
    heat = make_loss("centre_points", {"offset_weight": 0.0, "size_weight": 0.0})
    alone = heat(output, labels(SOME[:1]))[0].item()
    assert both - alone == pytest.approx(3 * 0.3 + 0.5 * 3.0, rel=1e-5)
    p = 1 / (1 + math.exp(-logit))
    miss = 1 / (1 + math.exp(9))
    # Far from the centre there is no Gaussian; next to it, cells are forgiven.
    most = -((1 - p) ** 2) * math.log(p) - 127 * miss**2 * math.log(1 - miss)
    assert -((1 - p) ** 2) * math.log(p) < alone < most


def test_images_without_boxes_teach_and_unknown_ones_do_not():
    output = torch.randn(3, CLASSES + 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    output.requires_grad_()
    loss, known = make_loss("centre_points", {})(output, labels(SOME, [], None))
    assert known.tolist() == [True, True, False] and loss[2] == 0 and loss[1] > 0
    (slope,) = torch.autograd.grad(loss.sum(), output)
    assert slope[1, :CLASSES].abs().sum() > 0 and not slope[1, CLASSES:].any()
    assert not slope[2].any() and slope.isfinite().all()


def by_hand(images, iou):
    """Return average precision of (boxes found, true boxes) of many images, box by box.

    What is found is (class, score, corners), which the surest take first.
    """
    each = []
    for kind in range(CLASSES):
        scores, right, total = [], [], 0
        for found, true in images:
            free = [box[1:] for box in true if box[0] == kind]
            total += len(free)
            for _, score, corners in sorted(
                (f for f in found if f[0] == kind), key=lambda f: -f[1]
            ):
                shares = [share(corners, box) for box in free]
                hit = bool(shares) and max(shares) >= iou
                if hit:
                    free.pop(int(np.argmax(shares)))
                scores.append(score)
                right.append(hit)
        if total:
            # Scikit-learn's mean is over those found; the others have no precision.
            recall = sum(right) / total
            each.append(average_precision_score(right, scores) * recall if any(right) else 0.0)
    return np.mean(each)


def share(a, b):
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - wide * high
    return wide * high / area


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_average_precision_is_that_of_matching_box_by_box(iou):
    random = np.random.default_rng(0)
    outputs, truths, images = [], [], []
    for _ in range(40):
        true = []
        for _ in range(random.integers(1, 4)):
            left, top = random.uniform(0, 0.6, 2)
            size = random.uniform(0.2, 0.4, 2)
            true.append((int(random.integers(CLASSES)), left, top, left + size[0], top + size[1]))
        output = torch.full((CLASSES + 4, SIDE, SIDE), 0.0, dtype=torch.float64)
        output[:CLASSES] = -9
        for kind, *corners in [*true, (0, 0.1, 0.1, 0.4, 0.4)]:
            said = grid((kind, *(np.array(corners) + random.normal(0, 0.03, 4)))).double()[0]
            row, column = divmod(int(said[kind].argmax()), SIDE)
            output[kind, row, column] = random.normal(0, 3)
            output[CLASSES:, row, column] = said[CLASSES:, row, column]
        found = decode(output[None], 100)
        images.append(
            (
                [
                    (int(kind), float(score), corners.tolist())
                    for kind, score, corners in zip(*(part[0] for part in found), strict=True)
                    if score > 0
                ],
                true,
            )
        )
        outputs.append(output)
        truths.append(labels(true)[0])
    metric = make_metric("box_average_precision", {"iou": iou, "bins": 65_536})
    sums = metric.summed(torch.stack(outputs)[None], torch.stack(truths)[None])[0]
    assert metric.value(sums) == pytest.approx(by_hand(images, iou), abs=2e-3)
    coarse = make_metric("box_average_precision", {"iou": iou})
    sums = coarse.summed(torch.stack(outputs)[None], torch.stack(truths)[None])[0]
    assert coarse.value(sums) == pytest.approx(by_hand(images, iou), abs=0.02)


def test_average_precision_of_what_is_right_missed_and_found_twice():
    metric = make_metric("box_average_precision", {})

    def of(output, y):
        return metric.value(metric.summed(output[None], y[None])[0])

    assert of(grid(*SOME), labels(SOME)) == 1
    assert of(grid(SOME[0], SOME[1]), labels(SOME)) == pytest.approx((1 + 0.5) / 2)
    # A second box of the same thing is wrong, and comes after the first.
    twice = grid(SOME[0], (0, 0.1, 0.1, 0.5, 0.8))
    assert of(twice, labels(SOME[:1])) == 1
    assert of(twice, labels([(0, 0.1, 0.1, 0.5, 0.8)])) == pytest.approx(1)  # each overlaps enough
    assert math.isnan(of(grid(*SOME), labels(None)))
    assert math.isnan(of(grid(*SOME), labels([])))


REGION = (-2, 0.5, 0.0, 1.0, 0.5)


def test_cells_of_an_ignored_region_teach_nothing():
    output = torch.randn(1, CLASSES + 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    output.requires_grad_()
    loss, known = make_loss("centre_points", {})(output, labels([SOME[0], REGION]))
    (slope,) = torch.autograd.grad(loss.sum(), output)
    assert known.tolist() == [True]
    region = slope[0, :CLASSES, : SIDE // 2, SIDE // 2 :]
    assert not region.any()
    # Everywhere else the loss is that of the box alone.
    alone, _ = make_loss("centre_points", {})(output, labels(SOME[:1]))
    (other,) = torch.autograd.grad(alone.sum(), output)
    other[0, :CLASSES, : SIDE // 2, SIDE // 2 :] = 0
    torch.testing.assert_close(slope, other)


def test_a_box_within_an_ignored_region_is_learnt():
    within = (1, 0.6, 0.1, 0.8, 0.3)
    output = torch.zeros(1, CLASSES + 4, SIDE, SIDE, requires_grad=True)
    loss, _ = make_loss("centre_points", {})(output, labels([within, REGION]))
    (slope,) = torch.autograd.grad(loss.sum(), output)
    assert slope[0, 1, 1, 5] < 0 and slope[0, :CLASSES].count_nonzero() == 97


def test_what_is_found_in_an_ignored_region_is_not_counted():
    metric = make_metric("box_average_precision", {})

    def of(output, *true):
        return metric.value(metric.summed(output[None], labels(true)[None])[0])

    stray, box = (0, 0.6, 0.1, 0.9, 0.4), (0, 0.1, 0.6, 0.4, 0.9)
    surer = grid(stray, box)
    assert of(surer, box) == pytest.approx(0.5)
    assert of(surer, box, REGION) == 1
    # Half of it must lie inside: a third does not, two thirds do.
    assert of(surer, box, (-2, 0.8, 0.1, 1.0, 0.4)) == pytest.approx(0.5)
    assert of(surer, box, (-2, 0.7, 0.1, 1.0, 0.4)) == 1
    # A true box in a region is one to be found.
    assert of(grid(box), box, stray, REGION) == pytest.approx(0.5)
