"""Average precision of boxes: as for classes, of the boxes that a model finds in images.

Of an image's hundred surest boxes each is right if it overlaps a true box of its class, which no
surer one has, by the share ``iou`` or more; of several it takes the one that it overlaps most. One
that is not right, and of which that share lies in a region of class -2, is not counted. The mean
over classes that have true boxes. Scores are counted in ranges, as in ``average_precision``;
COCO's further means over overlaps and sizes, and its 101 points of recall, are left out.

Paper: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fedjoint.model.boxes import IGNORED, Found, decode, inside, overlaps
from fedjoint.model.metric import Metric, counted
from fedjoint.model.metrics._scores import Bins, average_precisions, place

#: boxes that are looked at in an image
MOST = 100

Overlap = Annotated[float, Field(gt=0, lt=1)]


def box_average_precision(iou: Overlap = 0.5, bins: Bins = 256) -> Metric:
    """Return the metric.

    Args:
        iou: least intersection over union of a box that is right.
        bins: how many ranges of scores.
    """

    def sums(output: Tensor, y: Tensor) -> Tensor:
        clients, examples = output.shape[:2]
        classes = output.shape[2] - 4
        output, y = output.flatten(0, 1), y.flatten(0, 1)
        known = ~y.isnan().flatten(1).any(1)
        boxes, true = decode(output.double().nan_to_num(), MOST), y.nan_to_num(-1).double()
        right = _right(boxes, true, iou)
        row = (~right).long() * classes + boxes.classes
        client = torch.arange(clients, device=y.device).repeat_interleave(examples)
        row = row + 2 * classes * client[:, None]
        looked_at = known[:, None] & (boxes.scores > 0) & (right | ~_ignored(boxes, true, iou))
        at = (row * bins + place(boxes.scores.logit(), bins))[looked_at]
        found = torch.bincount(at, minlength=clients * 2 * classes * bins)
        there = (true[..., 0] >= 0) & known[:, None]
        of_class = F.one_hot(true[..., 0].long().clamp(min=0), classes) * there[..., None]
        counts = torch.cat([known[:, None].long(), of_class.sum(1)], 1)
        counts = counts.unflatten(0, (clients, examples)).sum(1)
        return torch.cat([counts, found.unflatten(0, (clients, -1))], 1).double()

    def rows(s: Tensor) -> Tensor:
        classes = (s.shape[1] - 1) // (1 + 2 * bins)
        total = s[:, 1 : 1 + classes]
        right, wrong = s[:, 1 + classes :].unflatten(1, (2, classes, bins)).unbind(1)
        return average_precisions(right, wrong, total).nanmean(1)

    return counted("box AP", sums, rows, ("detection",))


def _right(boxes: Found, true: Tensor, iou: float) -> Tensor:
    """Return ``[n, m]`` bool, which of the boxes, the surest first, are right.

    Args:
        boxes: that were found.
        true: ``[n, boxes, 5]`` those that are there.
        iou: least overlap.
    """
    free = true[..., 0] >= 0
    alike = boxes.classes[..., None] == true[:, None, :, 0]
    share = overlaps(boxes.corners, true[..., 1:])
    share = torch.where(alike & (share >= iou), share, 0)
    right = torch.zeros_like(boxes.classes, dtype=torch.bool)
    for rank in range(share.shape[1]):
        best, at = (share[:, rank] * free).max(1)
        right[:, rank] = best > 0
        taken = F.one_hot(at, free.shape[1]).bool() & (best > 0)[:, None]
        free = free & ~taken
    return right


def _ignored(boxes: Found, true: Tensor, share: float) -> Tensor:
    """Return ``[n, m]`` bool, which of the boxes found lie in a region that is ignored."""
    regions = (true[..., 0] == IGNORED)[:, None]
    return ((inside(boxes.corners, true[..., 1:]) >= share) & regions).any(2)
