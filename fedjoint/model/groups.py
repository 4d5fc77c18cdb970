"""Groups of clients, each with an architecture of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import nn

from fedjoint.errors import UserError
from fedjoint.model.parts import COMMON
from fedjoint.model.tree import Input


@dataclass(frozen=True)
class Group:
    """Clients with one architecture.

    Attributes:
        clients: their positions in the problem's data.
        backbone: builds a fresh backbone, see :class:`fedjoint.Problem`.
        example: ``[1, ...]`` one input of theirs: a tensor, or a dict of named tensors.
    """

    clients: Sequence[int]
    backbone: Callable[[], nn.Module]
    example: Input


@contextmanager
def naming(group: str) -> Iterator[None]:
    """Name ``group`` in the errors of what is done inside; an empty name is none."""
    try:
        yield
    except UserError as error:
        if not group or str(error).startswith(f"group {group!r}: "):
            raise
        raise type(error)(f"group {group!r}: {error}") from error


def membership(groups: Mapping[str, Group], active: np.ndarray) -> np.ndarray:
    """Return ``[clients]`` int64, the place of each client's group in the order of their names.

    Args:
        groups: name -> group.
        active: ``[clients]`` bool, who has a task; the others may be in no group: -1.

    Raises:
        UserError: a name is none, a group has no clients, or a client is in no group or in two.
    """
    if not isinstance(groups, Mapping):
        raise UserError(f"the groups are a {type(groups).__name__}: give a dict, name -> Group")
    member = np.full(len(active), -1, np.int64)
    for place, name in enumerate(sorted(groups, key=str)):
        _check_name(name)
        for client in _checked(name, groups[name], len(active)):
            if member[client] >= 0:
                other = sorted(groups)[member[client]]
                raise UserError(
                    f"client {client} is in the groups {other!r} and {name!r}: name it in one"
                )
            member[client] = place
    homeless = np.flatnonzero((member < 0) & active)
    if len(homeless):
        raise UserError(
            f"client {homeless[0]} is in no group: name it in one of {', '.join(sorted(groups))}"
        )
    return member


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][\w-]{0,40}", name):
        raise UserError(f"a group is called {name!r}: take a letter, then letters, digits, - or _")
    if name == COMMON:
        raise UserError(f"a group is called {COMMON!r}, as what all groups share is: rename it")


def _checked(name: str, group: Group, clients: int) -> list[int]:
    """Return the positions of a group's clients, once they are known to be in order."""
    if not isinstance(group, Group):
        raise UserError(f"group {name!r} is a {type(group).__name__}: give a fedjoint.Group")
    try:
        found = np.asarray(group.clients, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        found = np.zeros((0, 0), np.int64)
    whole = found.ndim == 1 and np.array_equal(found, np.asarray(group.clients))
    if not whole or not len(found):
        raise UserError(f"group {name!r}: give the numbers of its clients, such as [0, 1, 2]")
    for client in found.tolist():
        if not 0 <= client < clients:
            raise UserError(f"group {name!r}: there is no client {client} of {clients}")
    return found.tolist()
