"""Several backbones, as a strategy has them: which there are at first, and who receives which."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError, said
from fedjoint.server.strategy import JointStrategy

log = logging.getLogger("fedjoint.server.strategy")


def checked_first(strategy: JointStrategy, backbone: Tensor) -> Tensor:
    """Return the ``[K, P]`` float32 backbones that the first round starts with.

    Args:
        strategy: says so.
        backbone: ``[P]``; a copy, as a plug-in may change it.

    Raises:
        UserError: it fails, or returns something else.
    """
    name = type(strategy).__name__
    try:
        found = strategy.first_backbones(backbone.clone())
    except Exception as error:  # a plug-in may raise anything
        log.exception("first_backbones failed")
        raise UserError(f"{name}.first_backbones: {said(error)}") from error
    right = isinstance(found, Tensor) and found.ndim == 2 and len(found)
    if not right or found.shape[1] != len(backbone) or not found.isfinite().all():
        is_ = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"{name}.first_backbones returned {is_}, not finite (K, {len(backbone)}) with K from 1"
        )
    if len(found) == 1 and not torch.equal(found[0].to(backbone), backbone):
        raise UserError(
            f"{name}.first_backbones returned one other than it got: set model.initial, which "
            "says what a run of one backbone starts from"
        )
    return found.detach().to(backbone)


def checked_receives(
    strategy: JointStrategy, count: int, round: int, clients: np.ndarray, tasks: np.ndarray
) -> np.ndarray:
    """Return ``[n]`` int64, which backbone each client receives; -1: it chooses.

    Args:
        strategy: says so.
        count: of backbones.
        round: the round.
        clients: ``[n]`` ids.
        tasks: ``[n, tasks]`` bool.

    Raises:
        UserError: it fails, or returns something else.
    """
    name = type(strategy).__name__
    try:
        own = (torch.from_numpy(array.copy()) for array in (clients, tasks))
        found = strategy.receives(round, *own)
    except Exception as error:  # a plug-in may raise anything
        log.exception("receives failed")
        raise UserError(f"{name}.receives: {said(error)}") from error
    if found is None:
        return np.full(len(clients), -1)
    right = isinstance(found, Tensor) and found.dtype == torch.int64
    if not right or found.shape != (len(clients),) or ((found < -1) | (found >= count)).any():
        raise UserError(
            f"{name}.receives returned something else than ({len(clients)},) int64 from -1 and "
            f"below {count}"
        )
    return found.cpu().numpy()
