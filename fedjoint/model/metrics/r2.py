"""R2: the share of the targets' variance that is predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.families import TARGETS
from fedjoint.model.metric import pooled
from fedjoint.model.metrics._squares import squares


def _r2(s: Tensor) -> Tensor:
    # Several targets: the variance-weighted mean of their R2.
    count, error = s[:, 1], s[:, 2]
    squares, totals = s[:, 3:].chunk(2, 1)
    spread = (squares - totals**2 / count[:, None]).sum(1)
    return torch.where((count > 1) & (spread > 0), 1 - error / spread, torch.nan)


r2 = pooled("R2", squares, _r2, TARGETS)
