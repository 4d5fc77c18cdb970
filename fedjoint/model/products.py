"""The floating-point operations of a model."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import flop_registry

from fedjoint.model.dispatch import Mode


class Products(Mode):
    """Adds up the floating-point operations of products and convolutions run inside.

    As ``torch.utils.flop_counter.FlopCounterMode`` does, which imports PyTorch's compiler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.operations += formula(*args, **kwargs, out_val=result)
        return result
