"""What a strategy knows of clients by id, in one tensor that grows."""

from __future__ import annotations

import torch
from torch import Tensor


def known_of(clients: Tensor, place: Tensor, otherwise: int) -> Tensor:
    """``[n]`` int64, what ``place`` ``[ids]`` has of ``clients``, or ``otherwise`` beyond it."""
    return grown(place, clients, otherwise)[clients]


def grown(place: Tensor, clients: Tensor, otherwise: int) -> Tensor:
    """Return ``place`` ``[ids]`` with room for ``clients``, filled with ``otherwise``."""
    room = max(0, int(clients.max()) + 1 - len(place)) if len(clients) else 0
    return torch.cat([place, place.new_full((room,), otherwise)])
