"""AUROC: how probable it is that a right label has a higher score than a wrong one.

Of classes, of more than two the mean over each against all others; of labels the mean over them. A
class of which there is only right, or only wrong, has none.

Scores are counted in ranges, and those in one range tie. So it is the exact value but for half the
sum over ranges of the share of right labels times that of wrong ones there: below 0.001 where
scores spread over the ranges, and never beyond what one score for all of a range would give. With
1024 ranges, a class takes 16 KiB of a client's reply, for every split.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fedjoint.model.families import CLASSES, LABELS
from fedjoint.model.metric import Metric, counted
from fedjoint.model.metrics._scores import Bins, by_class, counts_by_score


def auroc(bins: Bins = 1024) -> Metric:
    """Return the metric.

    Args:
        bins: how many ranges of scores.
    """

    def rows(s: Tensor) -> Tensor:
        right, wrong = by_class(s, bins)
        below = wrong.cumsum(-1) - wrong / 2
        pairs = right.sum(-1) * wrong.sum(-1)
        return torch.where(pairs > 0, (right * below).sum(-1) / pairs, torch.nan).nanmean(1)

    count = partial(counts_by_score, bins=bins)
    return counted("AUROC", count, rows, (*CLASSES, *LABELS))
