"""Numbers at each place of an image, such as depth: targets ``[n, targets, height, width]``."""

from __future__ import annotations

from torch import Tensor, nn

from fedjoint.model.features import Features
from fedjoint.model.kind import Kind, Size
from fedjoint.model.kinds.regression import Regression
from fedjoint.model.kinds.segmentation import map_head
from fedjoint.model.metrics.rmse import rmse
from fedjoint.model.positions import by_position, known_positions


class DenseRegression(Regression):
    """Labels and outputs ``[n, targets, height, width]`` float32; NaN where nothing is known."""

    name = "dense_regression"
    dimensions = ("targets", "height", "width")
    metric = rmse

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        return (outputs, *size)

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        return map_head(features, outputs, size)

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        targets = by_position(y, y)[1]
        mean = targets[known_positions(targets)].double().nanmean(0).nan_to_num().float()
        return mean[:, None, None].expand(1, outputs, *size)

    def strata(self, y: Tensor) -> Tensor:
        return Kind.strata(self, y)
