"""What a merge returns: a step, or the steps of several backbones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedjoint.errors import UserError


class Steps(NamedTuple):
    """What a merge returns that changes how many backbones there are.

    Attributes:
        of: ``[K']`` int64, which of the K backbones each of the new ones moves from.
        steps: ``[K', P]``, by how much.
    """

    of: Tensor
    steps: Tensor


class MergeError(UserError):
    """A strategy is wrong in itself, whatever it is given."""


class NotFiniteError(UserError):
    """What a merge returned, or left as state, is not finite."""


def checked_steps(found: Any, backbones: Tensor) -> Steps:
    """Return what a merge of ``backbones`` ``[K, P]`` returned, as :class:`Steps`."""
    count, size = backbones.shape
    if isinstance(found, Steps):
        of, steps = found
        whole = isinstance(of, Tensor) and of.dtype == torch.int64 and of.ndim == 1 and len(of)
        if not whole or ((of < 0) | (of >= count)).any():
            raise MergeError(f"merge returned Steps whose of is not [K'] int64 below {count}")
        shape: tuple[int, ...] = (len(of), size)
    else:
        of, steps = torch.arange(count, device=backbones.device), found
        shape = (size,) if count == 1 and getattr(found, "ndim", 1) < 2 else (count, size)
    if not isinstance(steps, Tensor) or steps.shape != shape:
        is_ = tuple(steps.shape) if isinstance(steps, Tensor) else type(steps).__name__
        raise MergeError(f"merge returned {is_}, not {shape}")
    return Steps(of, steps.detach().to(backbones).view(len(of), size))
