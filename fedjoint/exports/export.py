"""Export: a run's backbone and one head, as a model of its own."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedjoint.config.schema import Config, ModelConfig
from fedjoint.data.base import Federation
from fedjoint.data.build import make_source
from fedjoint.data.source import Scaling, Source
from fedjoint.data.sources.synthetic import FixedHead
from fedjoint.data.split import features, moments
from fedjoint.errors import UserError, choose
from fedjoint.exports.backbones import with_one_backbone
from fedjoint.exports.exported import Exported
from fedjoint.exports.model import Card, Origin, Target, TaskModel
from fedjoint.exports.personal import PersonalModels
from fedjoint.model.heads import Reads
from fedjoint.model.ids import Known, vocabulary
from fedjoint.model.inputs import Description, Inputs
from fedjoint.model.ragged import checked_pad
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input
from fedjoint.node.own_data import with_own_data
from fedjoint.problem import Backbone, Problem, build_problem
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import Whole, check_whole
from fedjoint.training.targets import Scale

log = logging.getLogger(__name__)

#: Scalings that are further apart, in deviations and the root mean square, are told.
_APART = 0.5

#: the mean and the scale of the targets, where a model has them
Units = tuple[Tensor, Tensor] | None


def export(  # noqa: PLR0913 - all by name, and rarely more than two
    path: str | Path,
    task: str,
    *,
    client: int | None = None,
    group: str | None = None,
    backbone: int | None = None,
    best: bool = False,
    state: Path | None = None,
    clients: Sequence[int] | None = None,
    data: Mapping[str, Any] | None = None,
    problem: Problem | None = None,
) -> Exported:
    """Make one model of a run's backbone and a head of ``task``.

    With ``client``, it is the model with which the run evaluates that client: its head, and
    its own parts of the backbone, where it has any. Without, it has the shared backbone and the
    mean of the heads of all clients with the task, weighted by their training examples. Heads
    are linear, so its outputs are the mean of the clients' outputs. Where the strategy keeps
    several backbones, it has the one of most of these clients, and the mean of their heads.

    Args:
        path: the run directory.
        task: name of the task.
        client: whose model.
        group: take the clients of this group alone, where clients are in groups.
        backbone: take this one of several, and the clients that have it alone.
        best: take the best round by validation, of a run with ``output.keep_best``, not the last.
        state: file of the clients' private state; by default the run directory's, where a
            simulation keeps it. That of a deployed run is on its nodes.
        clients: on a node with data of its own, its clients' ids, as ``fedjoint client`` got them.
        data: the settings that replace those of the run's ``data`` there, see
            :func:`fedjoint.node.own_data.own_data`.
        problem: the run's own problem, where it did not come from the configuration.

    Raises:
        UserError: there is no such run, task or client, or no model can be made.
    """
    opened = open_run(path, best=best, state=state, clients=clients, data=data, problem=problem)
    made = opened.exported(task, client, group, backbone)
    if client is None:
        opened.compare_scaling(made.card.origin.clients)
    return made


@dataclass(frozen=True)
class Opened:
    """A run whose models can be made.

    Attributes:
        run: the directory.
        people: the clients' models.
        problem: with this machine's data.
        described: whether the problem comes from the configuration.
        ids: on a node with data of its own, its clients'; None: all clients.
    """

    run: RunDir
    people: PersonalModels
    problem: Problem
    described: bool
    ids: list[int] | None

    def task(self, name: str) -> Task:
        """Return the task of that name.

        Raises:
            UserError: there is none.
        """
        tasks = {task.name: task for task in self.problem.tasks}
        if name not in tasks:
            raise choose("task", name, tasks)
        return tasks[name]

    def exported(
        self, name: str, client: int | None, group: str | None = None, backbone: int | None = None
    ) -> Exported:
        """Return the model of a task, see :func:`export`.

        Raises:
            UserError: there is no such task or client, or no model can be made.
        """
        task, people, config = self.task(name), self.people, self.people.config
        holders = _holders(people, name, group)
        if client is not None and backbone is not None:
            raise UserError("a client has one backbone: give either --client or --backbone")
        weights, units, whose, how = _weights(people, name, client, holders, backbone)
        own = people.group(whose[0])
        joint, part = people.trainers[own].model, self.problem.of(own)
        joint.load_state_dict(weights)
        source = self._source
        scaling = source.scaling(self._unscaled, [people.places[id] for id in whose])
        body, head = copy.deepcopy(joint.backbone), copy.deepcopy(joint.heads[name])
        card = Card(
            inputs=_described(source, part, joint.ids),
            backbone=_settings(config, own) if isinstance(part.backbone, Backbone) else None,
            head=_head(task.head),
            target=_target(task, source),
            origin=_origin(self.run, people, own, whose, how, scaling),
        )
        numbers = (scaling.mean, scaling.scale) if scaling else None
        model = TaskModel(body, head, numbers, units).eval()
        return Exported(model, card, part.example)

    @property
    def data(self) -> tuple[Federation, Callable[[TaskModel, Input], Tensor]]:
        """The clients, and how a model is asked about what they have: unscaled where it can be.

        So a model scales inputs as it will in use, and not as each client did.
        """
        if self._unscaled is None:
            return self.problem.data, TaskModel.of_scaled
        return self._unscaled, TaskModel.__call__

    def compare_scaling(self, whose: Sequence[int]) -> None:
        """Warn where the pooled scaling of the clients ``whose`` is not like that of each."""
        raw = self._unscaled
        if raw is None:
            return
        x = [features(raw.client(self.people.places[client]).train.x) for client in whose]
        mean, scale = moments(torch.cat(x))
        for client, own in zip(whose, x, strict=True):
            own_mean, own_scale = moments(own)
            apart = ((own - mean) / scale - (own - own_mean) / own_scale).square().mean(0).sqrt()
            # Few examples are apart from all by chance: four errors of a mean of so many.
            if (apart > max(_APART, 4 / math.sqrt(len(own)))).any():
                log.warning(
                    "the model scales inputs by the pooled examples of its clients, each of which "
                    "trained on inputs scaled by its own (of client %s up to %.1f deviations "
                    "apart): it may predict worse than theirs; --client ID writes that of a client",
                    client,
                    float(apart.max()),
                )
                return

    # Once for all models: a source may read large files.

    @cached_property
    def _source(self) -> Source:
        return make_source(self.people.config.data.source) if self.described else Source()

    @cached_property
    def _unscaled(self) -> Federation | None:
        config = self.people.config
        return self._source.unscaled(config.data, config.seed, self.ids)


def open_run(
    path: str | Path,
    *,
    best: bool = False,
    state: Path | None = None,
    clients: Sequence[int] | None = None,
    data: Mapping[str, Any] | None = None,
    problem: Problem | None = None,
) -> Opened:
    """Return a run whose models can be made; see :func:`export`.

    Raises:
        UserError: there is no such run, or a file of it is missing or damaged.
    """
    run = RunDir.open(Path(path))
    run.described(problem)
    config, whole = run.config(), check_whole(run, states=False)
    kept = state or run.state
    if not kept.is_file() and run.info.get("deployed"):
        raise UserError(
            f"{kept}: no such file: the heads of a deployed run live on its nodes; export there, "
            "from a copy of the run directory, with --state and the node's state file"
        )
    ids = None
    if data:
        ids = list(clients or ())
        config = with_own_data(config.model_dump(), data, ids)
    described = problem is None and config.problem is None
    problem = problem or build_problem(config, ids)
    places = {id: place for place, id in enumerate(ids or range(len(problem.data.sizes)))}
    done, complete = _chosen(run, whole, best=best)
    people = PersonalModels(run, done, complete, config, problem, kept, places)
    return Opened(run, people, problem, described, ids)


def _described(source: Source, problem: Problem, ids: Known) -> Description:
    """Describe what the model of a problem reads."""
    described, pad = source.describe(problem.example), checked_pad(problem.pad, problem.example)

    def known(inputs: Inputs, name: str) -> Inputs:
        own = {"pad": pad.get(name, inputs.pad), "vocabulary": vocabulary(ids, name)}
        return inputs.model_copy(update=own)

    if isinstance(described, Inputs):
        return known(described, "")
    return {name: known(own, name) for name, own in described.items()}


def _target(task: Task, source: Source) -> Target:
    return Target(
        name=task.name,
        kind=task.kind,
        outputs=task.outputs,
        size=list(task.size),
        classes=source.class_names(task) if task.kind in ("multiclass", "tokens") else None,
    )


def _origin(
    run: RunDir,
    people: PersonalModels,
    group: str,
    whose: list[int],
    how: str,
    scaling: Scaling | None,
) -> Origin:
    return Origin(
        fedjoint=version("fedjoint"),
        run=run.path.name,
        run_id=run.id,
        seed=people.config.seed,
        round=people.round,
        strategy=people.config.strategy.name,
        method=people.method_name,
        clients=whose,
        group=group,
        how=how,
        scaling=scaling.words if scaling else None,
    )


def _chosen(run: RunDir, whole: Whole, *, best: bool) -> tuple[Checkpoint, bool]:
    """Return the run after the round that is exported, and whether it has the strategy's state."""
    if best:
        if whole.best is None:
            raise UserError(
                f"{run.path}: no best round is kept: set output.keep_best, "
                "and give clients validation examples"
            )
        return whole.best, True
    done, saved = whole.newest, run.info["saved"]
    if done is None:
        raise UserError(f"{run.path}: the run has no checkpoint yet")
    if done.round < saved:
        raise UserError(
            f"{run.path}: the checkpoint of round {saved} is missing or damaged; resume the run, "
            "or restore it from a backup"
        )
    if whole.saved and whole.saved.round == done.round:
        return whole.saved, True
    return done, False


def _settings(config: Config, group: str) -> ModelConfig:
    """Return the settings of the model of a group."""
    if not group:
        return config.model
    own = {"backbone": config.model.groups[group].backbone, "groups": {}, "common": []}
    return config.model.model_copy(update=own)


def _holders(people: PersonalModels, task: str, group: str | None) -> list[int]:
    """Return the ids of the clients, of a group where one is named, that have trained a task."""
    groups = people.problem.group_names
    if group is not None and group not in people.problem.groups:
        named = [name for name in groups if name]
        raise (
            choose("group", group, named)
            if named
            else UserError("the run's clients are in no groups: leave --group out")
        )
    holders = people.holders(task)
    if not holders:
        raise UserError(f"no client whose state is here has trained {task!r}")
    found = [client for client in holders if group in (None, people.group(client))]
    if not found:
        raise UserError(f"no client of group {group!r} has trained {task!r}")
    return found


def _weights(
    people: PersonalModels,
    task: str,
    client: int | None,
    holders: list[int],
    backbone: int | None,
) -> tuple[dict[str, Tensor], Units, list[int], str]:
    """Return the joint model's tensors, the targets' units, whose and how they were made."""
    some = ", ".join(map(str, holders[:20])) + (", ..." if len(holders) > 20 else "")
    if client is None:
        _check_one_group(people, task, holders, some)
        alike, what = with_one_backbone(people, task, holders, backbone)
        weights, units = _mean(people, task, alike, some)
        how = f"{what} and the mean of the clients' heads, by training examples"
        return weights, units, alike, how
    if client in holders:
        own = people.model(client, task)
        units = own.scale and (own.scale.mean.float(), own.scale.deviation.float())
        return own.weights, units, [client], f"the model of client {client}"
    raise UserError(f"client {client} has not trained {task!r}; those that have are {some}")


def _check_one_group(people: PersonalModels, task: str, holders: Sequence[int], some: str) -> None:
    groups = sorted({people.group(client) for client in holders})
    if len(groups) > 1:
        raise UserError(
            f"clients with {task!r} are in the groups {', '.join(groups)}, each with a backbone of "
            f"its own: choose one with --group, or a client with --client: {some}"
        )


def _mean(
    people: PersonalModels, task: str, holders: Sequence[int], some: str
) -> tuple[dict[str, Tensor], Units]:
    """Average the heads, as they predict in the targets' units, over one backbone."""
    prefix = f"heads.{task}."
    head = people.trainers[people.group(holders[0])].model.heads[task]
    head = head.head if isinstance(head, Reads) else head
    if not isinstance(head, nn.Linear) and head.state_dict():
        raise UserError(
            f"the head of {task!r} is not linear, so a mean of heads makes no sense; choose one "
            f"with --client: {some}"
        )
    first: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}
    examples, offset = 0, None
    for client in holders:
        own = people.model(client, task)
        first = first or own.weights
        for name, tensor in own.weights.items():
            if name.startswith(prefix):
                total[name] = total.get(name, 0) + own.examples * _in_units(tensor, own.scale)
            # Integers count batches; no output depends on them.
            elif (
                name.startswith("backbone.")
                and tensor.is_floating_point()
                and not torch.equal(tensor, first[name])
            ):
                raise UserError(
                    f"clients {holders[0]} and {client} have backbones of their own (they differ "
                    f"in {name!r}; local method {people.method_name}), so a mean of heads makes "
                    f"no sense; choose a client with --client: {some}"
                )
        examples += own.examples
        if own.scale is not None:
            offset = (0 if offset is None else offset) + own.examples * own.scale.mean
    weights = first | {name: (tensor / examples).float() for name, tensor in total.items()}
    if offset is None:
        return weights, None
    mean = (offset / examples).float()
    return weights, (mean, torch.ones_like(mean))


def _in_units(tensor: Tensor, scale: Scale | None) -> Tensor:
    """Return a linear head's weight or bias ``[outputs, ...]``, for targets less the mean."""
    if scale is None:
        return tensor.double()
    return tensor.double() * scale.deviation.view(-1, *[1] * (tensor.ndim - 1))


def _head(make: Any) -> Literal["linear", "fixed", "own"]:
    if make is None:
        return "linear"
    return "fixed" if make is FixedHead else "own"
