"""The loss of a centre-point head: where boxes have their centres, and how large they are.

Paper: Zhou et al., "Objects as Points", 2019, https://arxiv.org/abs/1904.07850
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.boxes import IGNORED
from fedjoint.model.loss import TaskLoss, numbers
from fedjoint.options import NotNegative

_FOCUS, _FORGIVEN = 2, 4  # alpha and beta of the paper


class CentrePoints(TaskLoss):
    """Focal loss of the classes' maps, and absolute errors of the boxes' offsets and sizes.

    Next to a centre, cells are forgiven by a Gaussian whose deviation is a sixth of the box's side,
    in place of the paper's radius; sizes are in cells. Cells whose middle is in a region of class
    -2 teach nothing, but where a box has its centre.

    Args:
        offset_weight: of the errors of centres within their cells.
        size_weight: of the errors of sizes.
    """

    kinds = ("detection",)

    def __init__(self, offset_weight: NotNegative = 1.0, size_weight: NotNegative = 0.1) -> None:
        self.offset_weight, self.size_weight = offset_weight, size_weight

    def __call__(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        known = ~y.isnan().flatten(1).any(1)
        y = y.nan_to_num(-1)
        there = (y[..., 0] >= 0).to(output.dtype)
        height, width = output.shape[2:]
        grid = numbers([width, height], y)
        centre = (y[..., 1:3] + y[..., 3:]) / 2 * grid
        size = (y[..., 3:] - y[..., 1:3]) * grid
        # A centre on the far edge belongs to the last cell.
        cell = torch.minimum(centre.floor().clamp(min=0), grid - 1)
        target = _target(y[..., 0], cell, size, output[:, :-4])
        heat = self._heat(output[:, :-4], target, _ignored(y, output))
        place = (cell[..., 1] * width + cell[..., 0]).long()
        boxes = output[:, -4:].flatten(2)
        said = boxes.gather(2, place[:, None].expand(-1, 4, -1)).movedim(1, 2)
        errors = (said - torch.cat([centre - cell, size], -1)).abs() * there[..., None]
        weighted = self.offset_weight * errors[..., :2].sum((1, 2))
        weighted = weighted + self.size_weight * errors[..., 2:].sum((1, 2))
        count = there.sum(1).clamp(min=1)
        return torch.where(known, (heat + weighted) / count, 0), known

    def _heat(self, logits: Tensor, target: Tensor, ignored: Tensor) -> Tensor:
        right, wrong = F.logsigmoid(logits), F.logsigmoid(-logits)
        hit = -(wrong.exp() ** _FOCUS) * right
        miss = -((1 - target) ** _FORGIVEN) * right.exp() ** _FOCUS * wrong * ~ignored
        return torch.where(target == 1, hit, miss).sum((1, 2, 3))


def _ignored(y: Tensor, like: Tensor) -> Tensor:
    """Return ``[n, 1, h, w]`` bool, the cells whose middle is in a region that is ignored."""
    ways = []
    for axis, length in ((0, like.shape[3]), (1, like.shape[2])):
        middle = (torch.arange(length, device=like.device) + 0.5) / length
        ways.append((y[..., 1 + axis, None] <= middle) & (middle < y[..., 3 + axis, None]))
    there = ways[1][..., :, None] & ways[0][..., None, :]  # [n, boxes, h, w]
    return (there & (y[..., 0] == IGNORED)[..., None, None]).any(1, keepdim=True)


def _target(classes: Tensor, cell: Tensor, size: Tensor, like: Tensor) -> Tensor:
    """Return ``[n, classes, h, w]``, one at the boxes' centres, and less next to them."""
    ways = []
    for axis, length in ((0, like.shape[3]), (1, like.shape[2])):
        steps = torch.arange(length, device=like.device) - cell[..., axis, None]
        deviation = size[..., axis, None].clamp(min=1) / 6
        ways.append((-(steps**2) / (2 * deviation**2)).exp())
    near = ways[1][..., :, None] * ways[0][..., None, :]  # [n, boxes, h, w]
    own = classes[..., None] == torch.arange(like.shape[1], device=like.device)
    return (near[:, :, None] * own[..., None, None]).amax(1)
