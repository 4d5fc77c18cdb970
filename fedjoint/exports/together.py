"""Ensembles of the models that runs left, each measured against its best member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fedjoint.data.base import Examples
from fedjoint.data.loading import load_client
from fedjoint.errors import UserError
from fedjoint.exports.ensemble import KINDS, EnsembleModel, fitted, mixed
from fedjoint.exports.export import Opened, open_run
from fedjoint.exports.exported import Exported
from fedjoint.exports.model import TaskModel
from fedjoint.model.positions import is_known
from fedjoint.model.stream import loaded
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input
from fedjoint.problem import Problem


@dataclass(frozen=True)
class Measured:
    """What a model is worth.

    Attributes:
        name: of the model.
        weight: in the ensemble; None for the ensemble itself.
        valid: metric on the validation examples of all clients with the task; NaN without any.
        test: the same on their test examples.
    """

    name: str
    weight: float | None
    valid: float
    test: float


@dataclass(frozen=True)
class Together:
    """An ensemble.

    Attributes:
        exported: the ensemble as a model.
        members: of each member.
        whole: of the ensemble.
        task: its task.
    """

    exported: Exported
    members: list[Measured]
    whole: Measured
    task: Task

    @property
    def best(self) -> Measured:
        """The best member, by validation."""
        up = 1 if self.task.metric_fn.higher_is_better else -1
        known = [each for each in self.members if each.valid == each.valid]
        return max(known or self.members, key=lambda each: up * each.valid)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per member, and one of the ensemble."""
        return [
            {"model": each.name, "weight": each.weight, "valid": each.valid, "test": each.test}
            for each in [*self.members, self.whole]
        ]


def ensemble(
    paths: Sequence[str | Path], task: str, *, best: bool = False, problem: Problem | None = None
) -> Together:
    """Make an ensemble of the clients' models of one run, or of the models of several runs.

    Of one run, a member is the model of each client with the task: the shared backbone and the
    client's own head, or its own backbone where it has one. Of several runs, say under several
    strategies, a member is each run's model: its backbone and the mean of its clients' heads.
    Predictions are averaged with the weights that are best on the validation examples of all
    clients with the task, see :func:`fedjoint.exports.ensemble.fitted`.

    Args:
        paths: run directories; several are of one seed and have the same data and architecture.
        task: name of the task.
        best: take the best round by validation, of runs with ``output.keep_best``, not the last.
        problem: the runs' own problem, where it did not come from the configuration.

    Raises:
        UserError: there is no such run or task, no model can be made, or runs do not fit each
            other.
    """
    opened = [open_run(path, best=best, problem=problem) for path in paths]
    first = opened[0]
    _check_alike(opened, list(map(str, paths)))
    own = first.task(task)
    if own.kind not in KINDS:
        raise UserError(
            f"task {task!r} is {own.kind}: an ensemble averages predictions of {', '.join(KINDS)}"
        )
    if len(opened) > 1:
        members = [each.exported(task, None) for each in opened]
        names = [each.run.path.name for each in opened]
        how = f"an ensemble of the models of {', '.join(names)}"
    else:
        holders = first.people.holders(task)
        if not holders:
            raise UserError(f"no client whose state is here has trained {task!r}")
        members = [first.exported(task, client) for client in holders]
        names = [f"client {client}" for client in holders]
        how = f"an ensemble of the models of {len(holders)} clients"
    return _weighed(first, members, names, how, own)


def _weighed(
    first: Opened, members: Sequence[Exported], names: Sequence[str], how: str, task: Task
) -> Together:
    models = [cast(TaskModel, each.model) for each in members]
    found = _found(first, models, task)
    kind = members[0].card.target.kind
    weights, metric = fitted(*found["valid"], kind), task.metric_fn

    def measured(name: str, weight: float | None, pick: Any) -> Measured:
        values = [
            float(metric.value(metric.summed(pick(outputs)[None], y[None])[0]))
            for outputs, y in found.values()
        ]
        return Measured(name, weight, *values)

    each = [
        measured(name, float(weight), lambda outputs, at=at: outputs[at])
        for at, (name, weight) in enumerate(zip(names, weights, strict=True))
    ]
    whole = measured("ensemble", None, lambda outputs: mixed(outputs, weights.float(), kind))
    card = members[0].card
    whose = sorted({client for member in members for client in member.card.origin.clients})
    origin = card.origin.model_copy(update={"clients": whose, "how": how})
    card = card.model_copy(update={"members": len(members), "origin": origin})
    model = EnsembleModel(models, weights, kind).eval()
    return Together(replace(members[0], model=model, card=card), each, whole, task)


@torch.inference_mode()
def _found(
    first: Opened, models: Sequence[TaskModel], task: Task
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return split -> the models' outputs ``[models, n, outputs]``, and the known labels."""
    holders = [first.people.places[client] for client in first.people.holders(task.name)]
    data, ask = first.data
    clients = [load_client(data, place) for place in holders]
    return {
        split: _outputs([getattr(client, split) for client in clients], models, task, ask)
        for split in ("valid", "test")
    }


def _outputs(
    examples: Sequence[Examples],
    models: Sequence[TaskModel],
    task: Task,
    ask: Callable[[TaskModel, Input], Tensor],
) -> tuple[Tensor, Tensor]:
    parts = [each.take(is_known(each.y[task.name]).nonzero().squeeze(1)) for each in examples]
    y = torch.cat([part.y[task.name] for part in parts])
    # A client at a time, as the run evaluates them.
    outputs = [
        torch.cat([ask(model, loaded(part.x)) for part in parts if len(part)] or [_none(task)])
        for model in models
    ]
    return torch.stack(outputs), y


def _none(task: Task) -> Tensor:
    return torch.zeros(0, task.outputs)


def _check_alike(opened: Sequence[Opened], paths: Sequence[str]) -> None:
    first = opened[0].people.config
    names: dict[str, str] = {}
    for each, path in zip(opened, paths, strict=True):
        if each.run.id in names:
            raise UserError(f"{path} is the same run as {names[each.run.id]}: name every run once")
        names[each.run.id] = path
    for each, path in zip(opened[1:], paths[1:], strict=True):
        config = each.people.config
        for what in ("data", "seed", "model.backbone", "problem"):
            mine, other = (_value(one, what) for one in (first, config))
            if mine != other:
                raise UserError(
                    f"{path} has another {what} than {paths[0]}: an ensemble is of runs of one "
                    "seed with the same data and architecture"
                )


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config
