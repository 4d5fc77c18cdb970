"""Before the first round: a plug-in's merge is tried on made-up updates."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.parts import Part
from fedjoint.randomness import Purpose, generator
from fedjoint.server.backbones import checked_first
from fedjoint.server.run import Run
from fedjoint.server.steps import MergeError, NotFiniteError
from fedjoint.server.strategy import checked_merge, make_strategy
from fedjoint.server.updates import Updates

_MOST = 1 << 25  # numbers in the updates that are made up

#: What is wrong however many clients there are.
_ALWAYS = (AttributeError, ImportError, NameError, NotImplementedError, TypeError)


def try_merge(run: Run) -> None:
    """Have a strategy like the run's merge made-up updates of the clients of a round.

    Nothing of that is kept. Built-in strategies are not tried. A merge that refuses these updates
    may take others, and one that reads what the local method sends is tried in the first round.

    Raises:
        UserError: the merge is wrong in itself; no client has trained yet.
    """
    if ":" not in run.config.strategy.name:
        return
    people = run.roster.people
    chosen = people.sample(run.config.seed, 1, run.config.strategy.fraction)
    for part in run.roster.parts.parts:
        own = chosen[run.merging.members(part, people)[chosen]]
        if len(own):
            _try_part(run, part, own)


def _try_part(run: Run, part: Part, chosen: np.ndarray) -> None:
    rows = min(len(chosen), max(2, _MOST // max(1, part.layout.parameters.size)))
    try:
        strategy = make_strategy(run.config)
        backbones = checked_first(strategy, run.merging.parameters(part, run.backbone))
        checked_merge(strategy, _made_up(run, part, chosen[:rows], backbones))
    except (MergeError, NotFiniteError) as error:
        if rows == len(chosen) or isinstance(error.__cause__, (*_ALWAYS, MergeError)):
            raise UserError(f"before the first round: {error}") from error
    except UserError:
        pass


class _AbsentError(UserError):
    """A merge asked for what the local method sends."""


class _Absent(dict[str, Tensor]):
    def __missing__(self, name: str) -> Tensor:
        raise _AbsentError(name)


def _made_up(run: Run, part: Part, chosen: np.ndarray, backbones: Tensor) -> Updates:
    people, count = run.roster.people, len(chosen)
    backbone = run.merging.parameters(part, run.backbone)
    rng = generator(run.config.seed, Purpose.MERGE, "trial")
    matrix = rng.standard_normal((count, len(backbone)), np.float32) * 1e-3
    sizes = torch.from_numpy(people.sizes[chosen])
    return Updates(
        matrix=torch.from_numpy(matrix),
        weights=(sizes / sizes.sum()).float(),
        examples=sizes,
        clients=torch.from_numpy(people.ids[chosen]),
        tasks=torch.from_numpy(people.tasks[chosen]),
        task_names=tuple(task.name for task in run.roster.tasks),
        steps=torch.ones(count, dtype=torch.int64),
        backbone=backbone,
        layout=part.layout.parameters,
        round=1,
        extras=_Absent(),
        backbones=backbones,
        received=torch.arange(count) % len(backbones),
    )
