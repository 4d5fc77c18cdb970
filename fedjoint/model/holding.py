"""A model that holds other weights than its own for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from torch import Tensor, nn
from torch.func import functional_call

from fedjoint.model.joint import JointModel

T = TypeVar("T")


def holding(
    model: JointModel, weights: Mapping[str, Tensor], act: Callable[[], T], *, tied: bool = True
) -> T:
    """Return what ``act`` returns, which calls ``model``, or parts of it, as often as it likes.

    Args:
        model: holds ``weights`` meanwhile; its own are as they were afterwards.
        weights: by their names in the model.
        act: is called once.
        tied: look for further names of the same parameter, which takes long.
    """
    held = {f"model.{name}": tensor for name, tensor in weights.items()}
    return cast(T, functional_call(_Holder(model), held, (act,), tie_weights=tied))


class _Holder(nn.Module):
    """Calls what it is given: functional_call replaces weights once for all that this does."""

    def __init__(self, model: JointModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, act: Callable[[], T]) -> T:
        return act()
