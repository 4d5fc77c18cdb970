"""What a strategy knows of clients by id: ``[2, n]`` int64, ids in order, and a number of each.

Ids may be large numbers, so nothing here is as long as the largest.
"""

from __future__ import annotations

import torch
from torch import Tensor


def nobody() -> Tensor:
    """Return what is known of no client."""
    return torch.zeros(2, 0, dtype=torch.int64)


def known_of(clients: Tensor, known: Tensor, otherwise: int) -> Tensor:
    """``[n]`` int64, the numbers of ``clients`` ``[n]``, or ``otherwise`` of those not known."""
    ids, numbers = known
    if not len(ids):
        return torch.full_like(clients, otherwise)
    at = torch.searchsorted(ids, clients).clamp(max=len(ids) - 1)
    return torch.where(ids[at] == clients, numbers[at], otherwise)


def noted(known: Tensor, clients: Tensor, numbers: Tensor) -> Tensor:
    """Return ``known`` with the ``numbers`` ``[n]`` of ``clients`` ``[n]``, known ones or new."""
    kept = known[:, ~torch.isin(known[0], clients)]
    both = torch.cat([kept, torch.stack([clients, numbers])], 1)
    return both[:, both[0].argsort()]
