"""A class at each position of a sequence: labels ``[n, length]``."""

from __future__ import annotations

from torch import Tensor, nn

from fedjoint.errors import UserError
from fedjoint.model.features import Features, Shape
from fedjoint.model.heads import default_head
from fedjoint.model.kind import Size
from fedjoint.model.kinds.multiclass import Multiclass
from fedjoint.model.positions import frequencies


class Tokens(Multiclass):
    """Labels ``[n, length]`` int64, outputs ``[n, length, classes]``."""

    name = "tokens"
    dimensions = ("length",)

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        return (*size, outputs)

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        def make(shape: Shape) -> nn.Module:
            assert not isinstance(shape, int)
            if shape[0] != size[0]:
                raise UserError(
                    f"the backbone makes features of {shape[0]} positions, and labels have "
                    f"{size[0]}: give the task size = ({shape[0]},)"
                )
            return nn.Linear(shape[1], outputs)

        return default_head(features, (2,), make)

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        return frequencies(y, outputs).expand(1, *size, outputs)
