"""Where there are several backbones: which of them go to a node, and which each client receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedjoint.protocol.requests import Asked
from fedjoint.server.merging import Merging
from fedjoint.server.plan import Plan
from fedjoint.server.roster import Seat


def dealt_plan(merging: Merging, plan: Plan) -> Plan:
    """Return a plan that says which backbone each client receives.

    Nodes send means where the clients of a block have the same backbone: blocks are divided. Of
    clients that choose theirs, nobody knows that beforehand, so they send rows.

    Raises:
        UserError: the strategies' answers are wrong.
    """
    asked = dealt(merging, plan.asked, plan.round)
    received = [share.received for share in asked.values() if share.received is not None]
    if not received:
        return plan
    reduce = plan.reduce and not any((own < 0).any() for own in received)
    if reduce:
        asked = {seat: _apart(share) for seat, share in asked.items()}
    return replace(plan, asked=asked, reduce=reduce)


def dealt(merging: Merging, asked: Mapping[Seat, Asked], round: int) -> dict[Seat, Asked]:
    """Return shares that say which backbone each client receives.

    A node is sent those that its clients need, and all where one of them chooses.

    Raises:
        UserError: the strategies' answers are wrong.
    """
    return {seat: _dealt(merging, seat, share, round) for seat, share in asked.items()}


def _dealt(merging: Merging, seat: Seat, share: Asked, round: int) -> Asked:
    _, group = seat
    count = merging.count(group)
    if count == 1:
        return share
    received = merging.receives(group, round, share.clients, share.tasks)
    if (received < 0).any():
        return replace(share, received=received, backbones=np.arange(count))
    backbones, places = np.unique(received, return_inverse=True)
    return replace(share, received=places.reshape(-1), backbones=backbones)


def _apart(share: Asked) -> Asked:
    """Return a share whose blocks have one backbone each; those of one block have its number."""
    if share.received is None:
        return share
    block = np.repeat(np.arange(len(share.blocks)), share.sizes)
    order = np.lexsort((share.received, block))
    pairs = np.column_stack([block, share.received])[order]
    found, sizes = np.unique(pairs, axis=0, return_counts=True)
    blocks = share.blocks[found[:, 0]]
    return replace(share.at(order), blocks=blocks, sizes=sizes, bundles=None)
