"""The coordinate-wise trimmed mean."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field
from torch import Tensor

from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._columns import by_columns


class TrimmedMean(JointStrategy):
    """``step[p]`` is the mean of ``update_i[p]`` without the lowest and highest few.

    Each client counts once; ``floor(beta * rows)`` values are left out at either end, with beta
    as it is written: 29 of 100 for 0.29.

    Breakdown point: as long as no more than ``floor(beta * rows)`` clients send something else,
    every ``step[p]`` lies among what the others sent.

    Args:
        beta: share left out at either end, in [0, 0.5).

    Paper: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
    Rates", ICML 2018, https://arxiv.org/abs/1803.01498
    """

    robust = True

    def __init__(self, beta: Annotated[float, Field(ge=0, lt=0.5)] = 0.2) -> None:
        super().__init__()
        self.beta = beta

    def merge(self, updates: Updates) -> Tensor:
        n = len(updates)
        cut = int(Decimal(repr(self.beta)) * n)
        return by_columns(updates.matrix, lambda values: values[:, cut : n - cut].mean(1))
