"""The clients' own models at the end of a run, from the private state on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.data.dataset import is_known
from fedjoint.errors import UserError
from fedjoint.node.store import StateStore
from fedjoint.problem import Problem
from fedjoint.runs.directory import RunDir
from fedjoint.server.strategy import checked_broadcast, local_method, make_strategy
from fedjoint.training.method import make_method
from fedjoint.training.targets import Scale
from fedjoint.training.trainer import Trainer


@dataclass(frozen=True)
class Personal:
    """A client's model.

    Attributes:
        examples: the client's training examples that are labelled for the task.
        weights: tensors of the joint model, by name; the heads are those of its tasks.
        scale: of the task's targets; None: the head predicts them as they are.
    """

    examples: int
    weights: dict[str, Tensor]
    scale: Scale | None = None


class PersonalModels:
    """The models with which a run evaluates its clients, after its newest checkpoint.

    Args:
        run: the run.
        config: its configuration, with this machine's data.
        problem: its problem.
        state: file of the clients' private state.
        places: client id -> position in ``problem.data``.

    Raises:
        UserError: a file does not fit the problem.
    """

    def __init__(
        self, run: RunDir, config: Config, problem: Problem, state: Path, places: Mapping[int, int]
    ) -> None:
        self.config, self.problem, self._state = config, problem, state
        self.trainer = Trainer(problem, config, torch.device("cpu"))
        done = run.backbone()
        self.round = done.round
        layout = self.trainer.layout
        if {n: tuple(t.shape) for n, t in done.backbone.items()} != layout.shapes:
            raise UserError(
                f"{run.path}: its backbone is not the one that its configuration describes; give "
                "the run's own problem, and leave model settings as they were"
            )
        self._received = layout.flat(done.backbone)
        self._broadcast: dict[str, Tensor] = {}
        self._store = StateStore(state)
        self._rounds = self._store.newest()
        strategy = make_strategy(config)
        saved = run.latest()
        if saved and saved.round == done.round:
            strategy.state = dict(saved.state)
            # A node that the server did not reach may hold rounds that do not count.
            counts = saved.ledger.of(np.array(list(self._rounds), np.int64))
            self._rounds = dict(zip(self._rounds, counts.tolist(), strict=True))
            parameters = self._received[: layout.parameters.size].clone()
            self._broadcast = checked_broadcast(strategy, parameters, done.round)
        self.method_name, options = local_method(strategy, config)
        self._method = make_method(self.method_name, options)
        self.trained = sorted(client for client, round in self._rounds.items() if round)
        self.places = places
        for client in self.trained:
            if client not in places:
                raise UserError(
                    f"{state}: client {client} is not in the data; on a node, give --clients and "
                    "--data as to fedjoint client"
                )

    def holders(self, task: str) -> list[int]:
        """Return the ids of the clients that have ``task`` and have trained."""
        column = list(self.problem.data.task_names).index(task)
        has = self.problem.data.tasks[:, column]
        return [client for client in self.trained if has[self.places[client]]]

    def model(self, client: int, task: str) -> Personal:
        """Return the model that ``client``, which has trained, is evaluated with.

        Raises:
            UserError: its state is damaged or does not fit, or its method cannot make a model.
        """
        trainer, place = self.trainer, self.places[client]
        states = self._store.read([client], [self._rounds[client]])
        if client not in states:
            raise UserError(
                f"{self._state}: no state of client {client} after round {self._rounds[client]}, "
                "which the run directory counts; copy both when the run stands still"
            )
        private = {name: tensor[None].clone() for name, tensor in states[client].items()}
        cohort = trainer.cohort(np.array([place]), np.array([client]))
        job = trainer.job(
            cohort,
            self.round,
            self._received,
            self._broadcast,
            self._received[None].clone(),
            private,
        )
        try:
            backbone, kept = self._method.personal(job)
        except KeyError as error:
            raise UserError(
                f"local method {self.method_name} misses {error}; it needs the checkpoint of "
                f"round {self.round}, which the run directory does not have"
            ) from None
        found = {**trainer.layout.views(backbone), **kept}
        weights = {}
        head = f"heads.{task}."
        for name, own in trainer.model.state_dict().items():
            if name.startswith(head) and name not in found:
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
        return Personal(examples, weights, scale and Scale(*(part[0] for part in scale)))
