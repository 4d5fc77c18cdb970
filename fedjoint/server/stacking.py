"""The updates of several groups of clients, as far as they are about one part of the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.parts import Part
from fedjoint.server.updates import Deviations, Updates


def stacked(part: Part, of: Mapping[str, Updates], masses: Mapping[str, float]) -> Updates:
    """Return what the clients of a part's groups say about the part, by client id (or block).

    Args:
        part: which of the shared tensors.
        of: group -> its clients' updates; one or more of the part's groups.
        masses: group -> the weight that its clients have in all.

    Raises:
        UserError: clients of two groups sent other arrays beside their updates.
    """
    own = {name: _cut(of[name], part.layout.parameters) for name in part.groups if name in of}
    if len(own) == 1:
        return next(iter(own.values()))
    every, total = list(own.values()), sum(masses[name] for name in own)
    order = torch.argsort(torch.cat([each.clients for each in every]), stable=True)

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(each, name) for each in every])[order]

    weights = torch.cat([own[name].weights.double() * masses[name] / total for name in own])
    rated = any(each.rates is not None for each in every)
    rates = [_rates(each) for each in every]
    return replace(
        every[0],
        matrix=joined("matrix"),
        weights=weights[order].float(),
        examples=joined("examples"),
        clients=joined("clients"),
        tasks=joined("tasks"),
        steps=joined("steps"),
        extras=_extras(every, order),
        rates=torch.cat(rates)[order] if rated else None,
        deviations=_deviations(every, order),
        received=joined("received"),
    )


def _cut(updates: Updates, layout: Layout) -> Updates:
    """Return ``updates`` of the tensors in ``layout`` alone.

    What else clients sent is about the parameters where its last dimension is as long as they are.
    """
    of = updates.layout
    if list(layout.shapes) == list(of.shapes):
        return updates
    apart = updates.deviations
    return replace(
        updates,
        matrix=layout.take(updates.matrix, of),
        backbone=layout.take(updates.backbone, of),
        backbones=layout.take(updates.backbones, of),
        layout=layout,
        extras={
            name: layout.take(extra, of) if about_parameters(extra, of, 1) else extra
            for name, extra in updates.extras.items()
        },
        deviations=apart and replace(apart, matrix=layout.take(apart.matrix, of)),
    )


def about_parameters(tensor: Tensor, layout: Layout, lead: int = 0) -> bool:
    """Say whether ``tensor``, after ``lead`` dimensions, has a number for each parameter last."""
    return tensor.ndim > lead and tensor.shape[-1] == layout.size


def _rates(updates: Updates) -> Tensor:
    return torch.ones(len(updates)) if updates.rates is None else updates.rates


def _extras(every: list[Updates], order: Tensor) -> dict[str, Tensor]:
    kinds = [{n: (e.dtype, e.shape[1:]) for n, e in each.extras.items()} for each in every]
    if any(kind != kinds[0] for kind in kinds):
        raise UserError("clients of two groups sent other arrays beside their updates")
    return {name: torch.cat([each.extras[name] for each in every])[order] for name in kinds[0]}


def _deviations(every: list[Updates], order: Tensor) -> Deviations | None:
    if all(each.deviations is None for each in every):
        return None
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    parts, start = [], 0
    for each in every:
        if each.deviations is not None:
            rows = place[start + each.deviations.rows]
            parts.append(replace(each.deviations, rows=rows))
        start += len(each)
    found = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("matrix", "rows", "tasks", "rests")
    }
    by_task = torch.from_numpy(np.lexsort((found["tasks"].numpy(), found["rows"].numpy())))
    return Deviations(**{name: tensor[by_task] for name, tensor in found.items()})
