"""A backbone for examples of several items each."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map


class EachItem(nn.Module):
    """Applies one backbone to every item of ``[n, items, ...]``: features ``[n, items, ...]``.

    Args:
        backbone: takes ``[n, ...]``, a tensor or a dict of them.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Any) -> Any:
        form = tree_leaves(x)[0].shape[:2]

        def apart(features: Tensor) -> Tensor:
            return features.unflatten(0, form)

        return tree_map(apart, self.backbone(tree_map(lambda part: part.flatten(0, 1), x)))
