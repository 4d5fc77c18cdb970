"""Which ids a model knows: those of its embeddings, found by looking on as they read an input.

A GPU that is given another id stops the whole process, and no line says whose it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fedjoint.errors import UserError
from fedjoint.model.tree import Input, named

#: name of a tensor -> how many ids each number of an example may be, ``[...]`` int64
Known = Mapping[str, Tensor]

_ANY = torch.iinfo(torch.int64).max  # of a number that no embedding reads


class LookingOn(TorchFunctionMode):
    """Notes which ids are known to what is called with ``x`` inside.

    Args:
        x: ``[n, ...]`` inputs; it has to be these very tensors. Ids that are computed from them
            before they are looked up are not known.

    Attributes:
        known: what was found.
    """

    def __init__(self, x: Input) -> None:
        super().__init__()
        self.known: dict[str, Tensor] = {}
        self._parts = {n: t for n, t in named(x).items() if _whole(t) and t.is_contiguous()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.embedding and len(args) > 1:
            self._note(*args[:2])
        return func(*args, **(kwargs or {}))

    def _note(self, ids: Tensor, table: Tensor) -> None:
        for name, part in self._parts.items():
            if ids.untyped_storage().data_ptr() == part.untyped_storage().data_ptr():
                most = self.known.setdefault(name, torch.full(part.shape[1:], _ANY))
                read = _places(part).as_strided(ids.shape, ids.stride(), ids.storage_offset())
                flat, at = most.view(-1), read.flatten().unique()
                flat[at] = flat[at].clamp(max=len(table))


def check_ids(x: Input, known: Known, who: str) -> None:
    """Make sure that a model knows all ids in ``x``.

    Args:
        x: ``[n, ...]`` inputs.
        known: see :class:`LookingOn`.
        who: whose inputs they are, for the message.

    Raises:
        UserError: it does not; the line names the example.
    """
    for name, most in known.items():
        part = named(x)[name]
        wrong = (part < 0) & (most < _ANY) | (part >= most.to(part.device))
        if wrong.any():
            at = wrong.nonzero()[0].tolist()
            what = f"{who}, {name!r}" if name else who
            raise UserError(
                f"{what}: example {at[0]} has the id {int(part[tuple(at)])}, and the model's "
                f"embedding has those from 0 to {int(most[tuple(at[1:])]) - 1}: give it as many "
                "as there are, or other ids"
            )


def vocabulary(known: Known, name: str) -> int | None:
    """Return how many ids every number of a tensor may be; None: of one that is not known."""
    if name not in known or not known[name].numel():
        return None
    least, most = int(known[name].min()), int(known[name].max())
    return least if least == most < _ANY else None


def _whole(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and tensor.dtype != torch.bool


def _places(part: Tensor) -> Tensor:
    """Return of each number of ``[n, ...]`` its place in its example, flat."""
    return torch.arange(part[0].numel()).repeat(len(part))
