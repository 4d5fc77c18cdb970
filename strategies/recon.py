"""Recon: layers in which tasks conflict become each task's own."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedjoint.model.layout import Layout
from fedjoint.options import Count, UpToOne
from fedjoint.server.steps import Steps
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._tasks import as_before, begin_anew


class Recon(JointStrategy):
    """Share the layers in which tasks agree, and have one of each task where they conflict.

    For ``after`` rounds all share one backbone, and every layer's score counts the pairs of tasks
    whose mean updates of it have a cosine below ``below``. Then the layers with the highest scores,
    a ``share`` of all, become the tasks' own, unless their score is zero. They go on from where
    they are, by the weighted mean of the task's clients; the others by that of all. A layer is what
    has one name but for its last part: weight and bias together. A client has its first task's.

    Where the run's tasks change, as nodes come and go, it begins anew from backbone 0.

    The state holds ``score`` ``[layers]`` int64, in the order of the backbone, the number of rounds
    that it is of, ``scored``, and once they are chosen ``own`` ``[layers]`` bool.

    Args:
        after: rounds before layers are chosen.
        share: of the layers that become the tasks' own, at most, in [0, 1].
        below: cosine below which two tasks conflict.

    Paper: Shi et al., "Recon: Reducing Conflicting Gradients From the Root For Multi-Task
    Learning", ICLR 2023, https://arxiv.org/abs/2302.11289
    """

    per_client = False
    by_part = False  # it chooses among all layers
    omits = "training from scratch once layers are chosen"

    def __init__(
        self,
        after: Count = 10,
        share: UpToOne = 0.5,
        below: Annotated[float, Field(ge=-1, le=0)] = 0.0,
    ) -> None:
        super().__init__()
        self.after = after
        self.share = share
        self.below = below

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        return tasks.long().argmax(1) if as_before(self) else torch.zeros_like(clients)

    def merge(self, updates: Updates) -> Tensor | Steps:
        if (anew := begin_anew(self, updates)) is not None:
            return anew
        layers = places(updates.layout)
        mean, count = updates.mean(), len(updates.task_names)
        if "own" in self.state:
            return self.moves(updates, mean, layers)
        tasks = updates.by_task().matrix
        score = torch.stack([self.conflicts(tasks[:, at]) for at in layers.values()])
        self.state["score"] = self.state.get("score", torch.zeros_like(score)) + score
        self.state["scored"] = self.state.get("scored", torch.tensor(0)) + 1
        if self.state["scored"] < self.after or count == 1:
            return mean
        self.state["own"] = self.chosen()
        if not self.state["own"].any():
            return mean
        return Steps(torch.zeros(count, dtype=torch.int64), mean.expand(count, -1))

    def conflicts(self, tasks: Tensor) -> Tensor:
        """Return how many pairs of ``tasks`` ``[t, p]``, their updates of a layer, conflict."""
        rows = torch.nn.functional.normalize(tasks.double(), dim=1)
        return (rows @ rows.T < self.below).triu(diagonal=1).sum()

    def chosen(self) -> Tensor:
        """``[layers]`` bool, which become the tasks' own; of equals the first."""
        score = self.state["score"]
        most = math.floor(self.share * len(score))
        ranked = score.argsort(descending=True, stable=True)
        own = torch.zeros(len(score), dtype=torch.bool)
        own[ranked[:most]] = True
        return own & (score > 0)

    def moves(self, updates: Updates, mean: Tensor, layers: dict[str, Tensor]) -> Tensor:
        """Return the ``[K, P]`` steps: of all clients, and of each task's where layers are own."""
        steps = updates.means()
        for at, own in zip(layers.values(), self.state["own"].tolist(), strict=True):
            if not own:
                steps[:, at] = mean[at]
        self.report = {
            f"own {name}": 1.0
            for name, own in zip(layers, self.state["own"].tolist(), strict=True)
            if own
        }
        return steps


def places(layout: Layout) -> dict[str, Tensor]:
    """Return layer -> the places of its numbers among the P."""
    views = layout.views(torch.arange(layout.size))
    parts: dict[str, list[Tensor]] = {}
    for name, view in views.items():
        parts.setdefault(name.rpartition(".")[0] or name, []).append(view.flatten())
    return {layer: torch.cat(own) for layer, own in parts.items()}
