"""A class at each place of an image: labels ``[n, height, width]``."""

from __future__ import annotations

from torch import Tensor, nn

from fedjoint.model.features import Features, Shape
from fedjoint.model.heads import MapHead, default_head
from fedjoint.model.kind import Size
from fedjoint.model.kinds.multiclass import Multiclass
from fedjoint.model.metrics.miou import miou
from fedjoint.model.positions import frequencies


def map_head(features: Features, outputs: int, size: Size) -> nn.Module:
    """Return a linear layer at each place of a map, enlarged to ``size``."""

    def make(shape: Shape) -> nn.Module:
        assert not isinstance(shape, int)
        return MapHead(shape, outputs, size)

    return default_head(features, (3,), make)


class Segmentation(Multiclass):
    """Labels ``[n, height, width]`` int64, outputs ``[n, classes, height, width]``."""

    name = "segmentation"
    dimensions = ("height", "width")
    metric = miou

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        return (outputs, *size)

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        return map_head(features, outputs, size)

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        return frequencies(y, outputs)[:, None, None].expand(1, outputs, *size)

    def predicted(self, output: Tensor) -> dict[str, Tensor]:
        return super().predicted(output.movedim(1, -1))
