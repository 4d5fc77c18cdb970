"""The clients' own models at the end of a run, from the private state on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.data.unchanged import check_unchanged
from fedjoint.errors import UserError
from fedjoint.model.frozen import digest
from fedjoint.model.parts import Parts, own_key
from fedjoint.model.positions import is_known
from fedjoint.problem import Problem
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.states import States
from fedjoint.server.merging import Merging
from fedjoint.server.strategy import circumstances, local_method, make_strategy
from fedjoint.training.job import Job
from fedjoint.training.method import make_method
from fedjoint.training.receiving import take_backbones
from fedjoint.training.targets import Scale
from fedjoint.training.trainer import Trainer


@dataclass(frozen=True)
class Personal:
    """A client's model.

    Attributes:
        examples: the client's training examples that are labelled for the task.
        weights: tensors of the joint model, by name; the heads are those of its tasks.
        scale: of the task's targets; None: the head predicts them as they are.
        backbone: which of the run's backbones it has, from 0.
    """

    examples: int
    weights: dict[str, Tensor]
    scale: Scale | None = None
    backbone: int = 0


class PersonalModels:
    """The models with which a run evaluates its clients, after its newest checkpoint.

    Args:
        run: the run.
        done: the run after the round whose models are wanted.
        complete: whether ``done`` has the strategy's state.
        config: its configuration, with this machine's data.
        problem: its problem.
        state: file of the clients' private state.
        places: client id -> position in ``problem.data``.

    Raises:
        UserError: a file is missing, damaged or of another run, or does not fit the problem.
    """

    def __init__(
        self,
        run: RunDir,
        done: Checkpoint,
        complete: bool,
        config: Config,
        problem: Problem,
        state: Path,
        places: Mapping[int, int],
    ) -> None:
        self.config, self.problem, self.places, self._state = config, problem, places, state
        self.round = done.round
        self.trainers = {
            name: Trainer(problem.of(name), config, torch.device("cpu"))
            for name in problem.group_names
        }
        layouts = {name: trainer.layout for name, trainer in self.trainers.items()}
        self._parts = Parts(layouts, config.model.common)
        self._check_model(run, done, elsewhere=state != run.state)
        self._received = {
            name: layout.flat(self._parts.of(name, done.backbone))
            for name, layout in layouts.items()
        }
        self._broadcast: dict[str, dict[str, Tensor]] = {name: {} for name in layouts}
        strategy = make_strategy(config)
        self._merging, self._complete = Merging(strategy, config), complete
        self._merging.divide(self._parts)
        self._merging.named = done.backbones
        self._whole = self._parts.layout.flat(done.backbone)
        self._all: dict[str, Tensor] = {}  # group -> its backbones, stacked once for all clients
        self._tasks = _task_names(run, problem)
        for own in self._merging.of.values():
            known = circumstances(own)
            assert known is not None, "made by make_strategy"
            known.rising = dict.fromkeys(self._tasks, True)
        if complete:
            self._merging.state = done.state
            self._broadcast = {
                name: self._merging.broadcast(name, self._whole, done.round) for name in layouts
            }
        self.method_name, options = local_method(strategy, config)
        self._method = make_method(self.method_name, options)
        self._states = States(state, run.id)
        self._rounds = self._counted(done.ledger, elsewhere=state != run.state)
        self.trained = sorted(self._rounds)
        self._known = self._states.fingerprints()

    def _check_model(self, run: RunDir, done: Checkpoint, *, elsewhere: bool) -> None:
        """Make sure that the run trained these models.

        Args:
            run: the run.
            done: the run after a round.
            elsewhere: whether this is a node, which may have some of the groups alone.
        """
        layout, some = self._parts.layout, elsewhere and bool(self.problem.groups)
        if some:
            own = {n: t for n, t in done.backbone.items() if n in layout.shapes}
            done = replace(done, backbone=own)
        if not done.fits(layout):
            raise UserError(
                f"{run.path}: its backbone is not the one that its configuration describes; give "
                "the run's own problem, and leave model settings as they were"
            )
        frozen = {
            own_key(name, tensor): values
            for name, trainer in self.trainers.items()
            for tensor, values in trainer.model.frozen().items()
        }
        if not some and done.digest != digest(frozen):
            raise UserError(
                f"{run.path}: the run began with other frozen weights than these: give the run's "
                "own problem, and the files that its weights came from"
            )

    def group(self, client: int) -> str:
        """Return the name of the group that ``client`` is in."""
        return self.problem.group_names[self.problem.member[self.places[client]]]

    def _counted(self, ledger: Ledger, elsewhere: bool) -> dict[int, int]:
        """Return the round that counts of each client whose state has to be here.

        Raises:
            UserError: a client's state is not here, or the client is not in the data.
        """
        counted = dict(zip(ledger.clients.tolist(), ledger.rounds.tolist(), strict=True))
        if elsewhere:  # a node's: that of its own clients
            counted = {c: r for c, r in counted.items() if c in self._states.newest()}
        for client in counted:
            if client not in self.places:
                raise UserError(
                    f"{self._state}: client {client} is not in the data; on a node, give "
                    "--clients and --data as to fedjoint client"
                )
        self._states.check(ledger.only(np.array(list(counted), np.int64)))
        return counted

    def holders(self, task: str) -> list[int]:
        """Return the ids of the clients that have ``task`` and have trained."""
        column = list(self.problem.data.task_names).index(task)
        has = self.problem.data.tasks[:, column]
        return [client for client in self.trained if has[self.places[client]]]

    def model(self, client: int, task: str) -> Personal:
        """Return the model that ``client``, which has trained, is evaluated with.

        Raises:
            UserError: its state does not fit, its data have changed, or its method cannot make a
                model.
        """
        place, group = self.places[client], self.group(client)
        trainer, received = self.trainers[group], self._received[group]
        if client in self._known:
            check_unchanged(self.problem.data, {client: self._known[client]}, self.places)
        states = self._states.read([client], [self._rounds[client]])
        private = {name: tensor[None].clone() for name, tensor in states[client].items()}
        cohort = trainer.cohort(np.array([place]), np.array([client]))
        job = trainer.job(
            cohort,
            self.round,
            received,
            self._broadcast[group],
            received[None].clone(),
            private,
        )
        self._receive(job, group, place)
        try:
            backbone, kept = self._method.personal(job)
        except KeyError as error:
            raise UserError(
                f"local method {self.method_name} misses {error}; it needs the checkpoint of "
                f"round {self.round}, which the run directory does not have"
            ) from None
        if backbone.ndim == 3:  # one for each task
            backbone = backbone[:, [own.name for own in cohort.tasks].index(task)]
        found = {**trainer.layout.views(backbone), **kept}
        weights = {}
        head, once = f"heads.{task}.", trainer.model.held_once
        for name, own in trainer.model.state_dict().items():
            if name.startswith(head) and name not in found and name not in once:
                raise UserError(
                    f"{self._state}: client {client} has no head of {task!r}; on a node, give "
                    "--tasks as to fedjoint client"
                )
            tensor = found[name][0].detach() if name in found else own
            if tensor.shape != own.shape:
                raise UserError(
                    f"{self._state}: {name} of client {client} has the shape "
                    f"{tuple(tensor.shape)}, not {tuple(own.shape)}; leave data and model "
                    "settings as they were"
                )
            weights[name] = tensor
        examples = int(is_known(cohort.train.y[task][0]).sum())
        scale = cohort.scales.get(task)
        return Personal(
            examples,
            weights,
            scale and Scale(*(part[0] for part in scale)),
            0 if job.backbone is None else int(job.backbone),
        )

    def backbones(self, group: str) -> int:
        """Return how many backbones the clients of a group have."""
        return self._merging.count(group)

    def _receive(self, job: Job, group: str, place: int) -> None:
        """Put a client's job onto its own backbone, where there are several."""
        if self.backbones(group) == 1:
            return
        if not self._complete:
            raise UserError(
                f"which backbone a client has is in the checkpoint of round {self.round}, which "
                "the run directory does not have"
            )
        names = self.problem.data.task_names
        has = {name for name, own in zip(names, self.problem.data.tasks[place], strict=True) if own}
        tasks = np.array([[name in has for name in self._tasks]])
        received = self._merging.receives(group, self.round, job.cohort.clients, tasks)
        if group not in self._all:
            self._all[group] = self._merging.all_of(group, self._whole)
        take_backbones(job, self._all[group], received, np.zeros(1, bool), lambda _: {})


def _task_names(run: RunDir, problem: Problem) -> list[str]:
    """Return the run's tasks in its server's order: a node may have some of them alone."""
    evaluations = [record.evaluation for record in run.records() if record.evaluation]
    if not evaluations:
        return [task.name for task in problem.tasks]
    return [name for name in evaluations[-1]["test"] if "/" not in name]
