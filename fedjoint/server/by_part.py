"""What the replies of several groups of clients say of each part of the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedjoint.model.parts import COMMON, Part, Parts
from fedjoint.server.agreement import diagnose
from fedjoint.server.collect import Collector
from fedjoint.server.updates import Updates, rough_inner_products


def diagnose_parts(
    parts: Parts,
    merged: Mapping[str, tuple[Updates, Tensor]],
    groups: Mapping[str, Collector],
) -> dict[str, Any]:
    """Describe how the updates of a round agree, see :func:`fedjoint.server.agreement.diagnose`.

    Args:
        parts: of the backbone.
        merged: part -> its updates, and the ``[P]`` step that they were merged into.
        groups: what the clients of each group replied, where some trained.

    Returns:
        That of the part that all groups share, or of the only one; and of the others by their
        names as ``groups``, where there are groups.
    """
    found = {
        part.name: diagnose(*merged[part.name], *_compared(part, merged[part.name][0], groups))
        for part in parts.parts
        if part.name in merged
    }
    shared: dict[str, Any] = found.pop(COMMON, found.pop("", {}))
    return shared | ({"groups": found} if found else {})


def _compared(
    part: Part, updates: Updates, groups: Mapping[str, Collector]
) -> tuple[Tensor, Tensor]:
    """Return ids ``[n]`` of the sampled clients that have a part, ascending, and their Gram matrix.

    See :meth:`fedjoint.server.collect.Collector.compared`.
    """
    own = [groups[name] for name in part.groups if name in groups]
    if not own[0].terms.reduce:
        return own[0].compared(updates)
    found = [collected.sampled_rows() for collected in own]
    ids = torch.cat([ids for ids, _ in found])
    size = part.layout.parameters
    rows = [size.take(r, c.terms.layout.parameters) for c, (_, r) in zip(own, found, strict=True)]
    order = torch.argsort(ids)
    return ids[order], rough_inner_products(torch.cat(rows)[order])


def moved_buffers(part: Part, groups: Mapping[str, Collector], *, robust: bool) -> Tensor:
    """``[B]``, by how much a part's buffers move: as the clients that have them, on the mean.

    Args:
        part: the part.
        groups: what the clients of each group replied, where some trained.
        robust: take the median of each number.
    """
    own = [groups[name] for name in part.groups if name in groups]
    wanted, masses = part.layout.statistics, [collected.mass for collected in own]
    rows, weights = [], []
    for collected, mass in zip(own, masses, strict=True):
        moved, shares = collected.buffers()
        rows.append(wanted.take(moved, collected.terms.layout.statistics))
        weights.append(shares * (mass / sum(masses)))
    if robust:
        ascending = torch.cat(rows).sort(dim=0).values
        count = len(ascending)
        return (ascending[(count - 1) // 2] + ascending[count // 2]) / 2
    # Of BatchNorm's statistics, only a mean makes sense.
    return torch.cat(weights) @ torch.cat(rows)
