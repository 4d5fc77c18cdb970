"""One backbone per task: each task's clients train among themselves, as the joint run trains all.

What separates this from training alone is more data for the task; what separates joint training
from this is transfer across tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.data.base import Client, Examples, Federation
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Way
from fedjoint.experiments.ways import whole
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem
from fedjoint.server.population import round_half_up


class OneTask:
    """The clients of ``data``, all under their ids, with the labels of one of its tasks.

    A client without the task has no examples, so that it never trains. The others keep theirs:
    their splits and minibatches are those of ``data``.

    Args:
        data: the clients.
        task: name of the task.
    """

    def __init__(self, data: Federation, task: str) -> None:
        column = data.task_names.index(task)
        self.task_names: tuple[str, ...] = (task,)
        self.tasks = data.tasks[:, [column]]
        self.sizes = np.where(data.tasks[:, column], data.sizes, 0)
        self._data = data

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        client = self._data.client(index)
        if not self.tasks[index, 0]:
            return client.without_examples()
        parts = (client.train, client.valid, client.test)
        (task,) = self.task_names
        return Client(*(Examples(part.x, {task: part.y[task]}) for part in parts))


def by_task(config: Config, problem: Problem) -> Iterator[tuple[Config, Problem]]:
    """Yield, for each task, a run of the clients that have it, with ``config``'s settings.

    ``strategy.min_clients`` is lowered to the clients that the task has in a round, and what is
    set by task is what is set for this one.

    Raises:
        UserError: no client has a training example of a task.
    """
    for task in problem.tasks:
        data = OneTask(problem.data, task.name)
        if not data.sizes.any():
            raise UserError(f"task {task.name!r}: no client has a training example of it")
        groups = {  # those who have the task
            name: group
            for name, group in problem.groups.items()
            if data.sizes[np.asarray(group.clients)].any()
        }
        yield (
            _settings(config, task, data),
            replace(problem, tasks=[task], data=data, groups=groups),
        )


def of_task(config: Config, task: str) -> Config:
    """Return ``config`` with what it sets by task for ``task`` alone: there are no others."""

    def own(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name == task}

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


def _settings(config: Config, task: Task, data: Federation) -> Config:
    in_a_round = max(1, round_half_up(config.strategy.fraction * int((data.sizes > 0).sum())))
    least = min(config.strategy.min_clients, in_a_round)
    strategy = config.strategy.model_copy(update={"min_clients": least})
    return of_task(config, task.name).model_copy(
        update={"name": f"{config.name}-{task.name}", "strategy": strategy}
    )


def _runs(config: Config) -> list[tuple[Config, Problem]]:
    return list(by_task(config, build_problem(config)))


PER_TASK = Way("per task", _runs)
WHOLE_PER_TASK = Way("per task, whole model", lambda config: _runs(whole(config)))
