"""A backbone for examples of several items each."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fedjoint.model.tree import Input, each, first


class EachItem(nn.Module):
    """Applies one backbone to every item of ``[n, items, ...]``: features ``[n, items, ...]``.

    Args:
        backbone: takes ``[n, ...]``, a tensor or a dict of them.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Input) -> Any:
        form = first(x).shape[:2]

        def apart(features: Tensor) -> Tensor:
            return features.unflatten(0, form)

        return each(apart, self.backbone(each(lambda part: part.flatten(0, 1), x)))
