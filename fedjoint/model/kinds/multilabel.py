"""Any of several labels: ``[n, labels]`` of 0 and 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedjoint.model.features import Features
from fedjoint.model.kind import Kind, Size
from fedjoint.model.kinds.multiclass import vector_head
from fedjoint.model.losses.binary_cross_entropy import BinaryCrossEntropy
from fedjoint.model.metrics.micro_f1 import micro_f1
from fedjoint.model.positions import is_known


class Multilabel(Kind):
    """Labels ``[n, labels]`` float32 in {0, 1}, outputs ``[n, labels]``."""

    name = "multilabel"
    dimensions = ("labels",)
    counts = "labels"
    least = 1
    whole = False
    loss = BinaryCrossEntropy()
    metric = micro_f1

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        return (outputs,)

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        return vector_head(features, outputs)

    def wrong(self, y: Tensor, outputs: int) -> str | None:
        bad = y[~(y.isnan() | (y == 0) | (y == 1))]
        return (
            f"a label is {float(bad[0]):g}; give 0, 1, or NaN where missing" if len(bad) else None
        )

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        mean = y[is_known(y)].double().nanmean(0).nan_to_num()
        return mean.float()[None] - 0.5

    def predicted(self, output: Tensor) -> dict[str, Tensor]:
        return {"": (output > 0).long(), "probability": output.sigmoid()}

    def strata(self, y: Tensor) -> Tensor:
        return torch.unique(y.nan_to_num(-1), dim=0, return_inverse=True)[1]
