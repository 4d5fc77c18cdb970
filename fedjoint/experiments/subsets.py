"""Some of the tasks of a problem: the same clients and splits, with the labels of these alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.data.base import Client, Examples, Federation
from fedjoint.errors import UserError
from fedjoint.experiments.client_tasks import only
from fedjoint.model.groups import Group
from fedjoint.problem import Problem
from fedjoint.server.population import round_half_up


class SomeTasks:
    """The clients of ``data``, all under their ids, with the labels of some of its tasks.

    A client with none of them has no examples, so that it never trains. The others keep theirs:
    their splits and minibatches are those of ``data``.

    Args:
        data: the clients.
        tasks: names of tasks; they keep the order of ``data``.
    """

    def __init__(self, data: Federation, tasks: Sequence[str]) -> None:
        columns = [at for at, name in enumerate(data.task_names) if name in tasks]
        self.task_names: tuple[str, ...] = tuple(data.task_names[at] for at in columns)
        self.tasks = data.tasks[:, columns]
        self.sizes = np.where(self.tasks.any(1), data.sizes, 0)
        self._data = data

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        client = self._data.client(index)
        own = [name for name, has in zip(self.task_names, self.tasks[index], strict=True) if has]
        if not own:
            return client.without_examples()
        parts = (client.train, client.valid, client.test)
        return Client(*(Examples(part.x, {name: part.y[name] for name in own}) for part in parts))


def run_of(config: Config, problem: Problem, tasks: Sequence[str]) -> tuple[Config, Problem]:
    """Return a joint run of some tasks: of the clients that have them, with ``config``'s settings.

    Where clients are tasks, it is of some clients.

    ``strategy.min_clients`` is lowered to the clients that these tasks have in a round, and what
    is set by task is what is set for these.

    Args:
        config: the run of all tasks.
        problem: of all tasks.
        tasks: names of tasks.

    Raises:
        UserError: no client has a training example of a task.
    """
    if config.data.clients_are_tasks:
        own = only(problem, tasks)
        return _settings(config, own.data), replace(own, groups=_training(problem, own.data))
    for name in tasks:
        if not SomeTasks(problem.data, [name]).sizes.any():
            raise UserError(f"task {name!r}: no client has a training example of it")
    data = SomeTasks(problem.data, tasks)
    groups = _training(problem, data)
    kept = [task for task in problem.tasks if task.name in tasks]
    return _settings(config, data), replace(problem, tasks=kept, data=data, groups=groups)


def _training(problem: Problem, data: Federation) -> dict[str, Group]:
    """Return the groups of clients in which somebody trains."""
    return {
        name: group
        for name, group in problem.groups.items()
        if data.sizes[np.asarray(group.clients)].any()
    }


def of_tasks(config: Config, tasks: Sequence[str]) -> Config:
    """Return ``config`` with what it sets by task for ``tasks`` alone: there are no others."""

    def own(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in tasks}

    data, balance = config.data, config.balance
    options = dict(balance.options)
    if "weights" in options:
        options["weights"] = own(options["weights"])
    return config.model_copy(
        update={
            "metrics": own(config.metrics),
            "losses": own(config.losses),
            "data": data.model_copy(update={"target_scale": own(data.target_scale)}),
            "balance": balance.model_copy(update={"options": options}),
        }
    )


def _settings(config: Config, data: Federation) -> Config:
    in_a_round = max(1, round_half_up(config.strategy.fraction * int((data.sizes > 0).sum())))
    least = min(config.strategy.min_clients, in_a_round)
    strategy = config.strategy.model_copy(update={"min_clients": least})
    return of_tasks(config, data.task_names).model_copy(update={"strategy": strategy})
