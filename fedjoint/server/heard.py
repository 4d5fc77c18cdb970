"""What clients tell the strategy beside their updates, whatever architecture they have."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError, said
from fedjoint.server.part import Part
from fedjoint.server.steps import MergeError
from fedjoint.server.strategy import JointStrategy, check_tensors
from fedjoint.training.method import HEARD

log = logging.getLogger("fedjoint.server.strategy")


def heard(parts: Sequence[Part]) -> dict[str, Tensor]:
    """Return name -> ``[clients, ...]`` of the clients that trained, by id.

    The clients of a node that sent none of a name have zeros.

    Args:
        parts: the nodes' replies about all groups.

    Raises:
        UserError: clients sent tensors of different types or shapes under one name.
    """
    names = sorted({name for part in parts for name in part.reply.extras if name.startswith(HEARD)})
    if not names:
        return {}
    order = np.argsort(np.concatenate([part.asked.clients[part.good] for part in parts]))
    return {name.removeprefix(HEARD): torch.from_numpy(_rows(parts, name)[order]) for name in names}


def _rows(parts: Sequence[Part], name: str) -> np.ndarray:
    sent = [part.reply.extras[name] for part in parts if name in part.reply.extras]
    first = sent[0]
    for other in sent:
        if (other.dtype, other.shape[1:]) != (first.dtype, first.shape[1:]):
            raise MergeError(
                f"clients send {name.removeprefix(HEARD)!r} of {list(first.shape[1:])} and of "
                f"{list(other.shape[1:])}: give their models equally many features and outputs"
            )
    return np.concatenate(
        [
            part.reply.extras.get(name, np.zeros((len(part.good), *first.shape[1:]), first.dtype))[
                part.good
            ]
            for part in parts
        ]
    )


def checked_hear(strategy: JointStrategy, parts: Sequence[Part]) -> None:
    """Let ``strategy`` hear what clients told it.

    Raises:
        UserError: it refuses that, or its state is not finite.
        MergeError: it fails, or leaves as state what it may not.
    """
    told = heard(parts)
    if not told:
        return
    name = type(strategy).__name__
    try:
        strategy.hear(told)
        check_tensors("state", strategy.state)
    except UserError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:  # a plug-in may raise anything
        log.exception("hear failed")
        raise MergeError(f"{name}: hear fails: {said(error)}") from error
