"""Boxes in images, found by their centres: labels ``[n, boxes, 5]``, see :mod:`..boxes`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedjoint.model.boxes import IGNORED, decode
from fedjoint.model.features import Features, Shape
from fedjoint.model.heads import MapHead, default_head
from fedjoint.model.kind import Kind, Size
from fedjoint.model.losses.centre_points import CentrePoints
from fedjoint.model.metrics.box_average_precision import MOST, box_average_precision

_RARE = -2.19  # the logit of 0.1, at which a head begins, as most cells have no box


class Detection(Kind):
    """Labels ``[n, boxes, 5]`` float32, outputs ``[n, classes + 4, h, w]``.

    A label is class, left, top, right and bottom, in shares of the image; class -1 is padding,
    class -2 a region in which the boxes are unknown, and NaN an image of which all are. The grid of
    the outputs is the features'.
    """

    name = "detection"
    dimensions = ("boxes", 5)
    least = 1
    whole = False
    loss = CentrePoints()
    metric = box_average_precision()

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        return outputs + 4, None, None

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        def make(shape: Shape) -> nn.Module:
            assert not isinstance(shape, int)
            head = MapHead(shape, outputs + 4)
            with torch.no_grad():
                head.bias[:outputs] = _RARE
                head.bias[outputs:] = 0.5
            return head

        return default_head(features, (3,), make)

    def outputs_in(self, y: Tensor) -> int:
        return max(self.least, int(y[..., 0].nan_to_num(-1).max()) + 1)

    def wrong(self, y: Tensor, outputs: int) -> str | None:
        rows = y[~y.isnan().flatten(1).any(1)].flatten(0, 1)
        classes = rows[:, 0]
        bad = rows[(classes != classes.round()) | (classes < IGNORED) | (classes >= outputs)]
        if len(bad):
            return (
                f"a box has the class {float(bad[0, 0]):g} of {outputs}; number classes from 0, "
                "fill up with boxes of class -1, and ignore regions by class -2"
            )
        boxes = rows[classes != -1, 1:]
        inside = (boxes >= 0).all(1) & (boxes <= 1).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        if inside.all():
            return None
        numbers = ", ".join(f"{float(number):g}" for number in boxes[~inside][0])
        return (
            f"a box has the corners {numbers}: give left, top, right and bottom, in shares of the "
            "image from 0 to 1"
        )

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        return torch.full((1, outputs + 4, 1, 1), -20.0)

    def predicted(self, output: Tensor) -> dict[str, Tensor]:
        found = decode(output, MOST)
        return {"": found.corners, "class": found.classes, "score": found.scores}
