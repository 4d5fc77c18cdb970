"""Numbers: targets ``[n, targets]``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint.model.features import Features
from fedjoint.model.kind import Kind, Size
from fedjoint.model.kinds.multiclass import vector_head
from fedjoint.model.losses.squared import Squared
from fedjoint.model.metrics.r2 import r2
from fedjoint.model.positions import is_known

_BINS = 10


class Regression(Kind):
    """Labels and outputs ``[n, targets]`` float32."""

    name = "regression"
    dimensions: ClassVar[tuple[str | int, ...]] = ("targets",)
    counts = "targets"
    least = 1
    whole = False
    scaled = True
    loss = Squared()
    metric = r2

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        return (outputs,)

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        return vector_head(features, outputs)

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        return y[is_known(y)].double().nanmean(0).nan_to_num().float()[None]

    def predicted(self, output: Tensor) -> dict[str, Tensor]:
        return {"": output}

    def strata(self, y: Tensor) -> Tensor:
        first, known = y[:, 0].numpy(), is_known(y).numpy()
        edges = np.quantile(first[known], np.linspace(0, 1, _BINS + 1)[1:-1])
        return torch.from_numpy(np.where(known, np.searchsorted(edges, first), -1))
