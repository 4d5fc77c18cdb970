"""How many right and wrong labels have a score in each of many narrow ranges.

Where a metric depends on the order of all scores, no sums give it exactly. These counts give it but
for the order within a range. A score is a logit, from -16 to 16, beyond which all is one range: so
probabilities near 0 and 1, where those of rare classes are, have ranges as narrow as others.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fedjoint.model.positions import by_position, known_positions

#: how many ranges of scores; each is a number of 8 bytes, for right and wrong labels of each class
Bins = Annotated[int, Field(ge=2, le=65_536)]

_FURTHEST = 16.0


def place(logits: Tensor, bins: int) -> Tensor:
    """Return the number of each logit's range, int64, from 0."""
    share = (logits.nan_to_num().clamp(-_FURTHEST, _FURTHEST) + _FURTHEST) / (2 * _FURTHEST)
    return (share * bins).long().clamp(max=bins - 1)


def counts_by_score(output: Tensor, y: Tensor, bins: int) -> Tensor:
    """Return ``[c, 1 + 2 k bins]``: the count, and by class and range the right and wrong labels.

    Each class, of two the second alone, is told from all others; each label stands for itself.

    Args:
        output: ``[c, n, ...]`` logits.
        y: ``[c, n, ...]`` classes or labels.
        bins: how many ranges.
    """
    clients, examples = output.shape[:2]
    output, y = by_position(output.flatten(0, 1), y.flatten(0, 1))
    known = known_positions(y)
    logits, right = _told_apart(output.double(), y)
    classes = logits.shape[-1]
    client = torch.arange(clients, device=y.device).repeat_interleave(examples)
    row = 2 * client[:, None, None] + (~right).long()
    row = row * classes + torch.arange(classes, device=y.device)
    at = (row * bins + place(logits, bins))[known]
    sums = torch.bincount(at.flatten(), minlength=clients * 2 * classes * bins)
    count = known.any(1).unflatten(0, (clients, examples)).sum(1)
    return torch.cat([count[:, None], sums.unflatten(0, (clients, -1))], 1).double()


def _told_apart(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``[n, p, k]`` logits of each class or label alone, and whether it is right."""
    if y.is_floating_point():
        return output, y > 0.5
    logs = F.log_softmax(output, -1)
    logits = logs - torch.log(-torch.expm1(logs))
    right = F.one_hot(y.clamp(min=0), output.shape[-1]).bool()
    alone = slice(1, None) if output.shape[-1] == 2 else slice(None)
    return logits[..., alone], right[..., alone]


def by_class(s: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Return ``[n, k, bins]`` counts of right and wrong labels, of sums ``[n, 1 + 2 k bins]``."""
    right, wrong = s[:, 1:].unflatten(1, (2, -1, bins)).unbind(1)
    return right, wrong


def average_precisions(right: Tensor, wrong: Tensor, total: Tensor) -> Tensor:
    """Return ``[...]``, the mean over all true labels of the precision down to their score.

    Args:
        right: ``[..., bins]`` true labels by rising score.
        wrong: ``[..., bins]`` the others.
        total: ``[...]`` how many true ones there are; without any it is NaN.
    """
    above, others = (part.flip(-1).cumsum(-1).flip(-1) for part in (right, wrong))
    precision = above / (above + others).clamp(min=1)
    return torch.where(total > 0, (right * precision).sum(-1) / total, torch.nan)
