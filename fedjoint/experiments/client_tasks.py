"""Clients as tasks (``data.clients_are_tasks``): under the one name, each client is one by itself.

A run trains them as one task. What each client measured of its own (:attr:`RoundRecord.own`) is
then told as a task's metric, so that comparisons treat clients as they treat tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.data.unseen import Seen
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem
from fedjoint.runs.record import Metrics, RoundRecord
from fedjoint.runs.result import RunResult


def compared(config: Config, problem: Problem) -> tuple[Task, ...]:
    """Return what a comparison compares: the tasks or, where they are tasks, the clients.

    Clients without training examples are none.
    """
    if not config.data.clients_are_tasks:
        return tuple(problem.tasks)
    (task,) = problem.tasks
    return tuple(replace(task, name=name_of(task.name, c)) for c in clients(problem).tolist())


def clients(problem: Problem) -> np.ndarray:
    """Return ``[n]`` int64, the clients with training examples."""
    return np.flatnonzero(problem.data.sizes > 0)


def name_of(task: str, client: int) -> str:
    """Return what a client is called as a task."""
    return f"{task} {client}"


def pooled_of(tasks: Sequence[Task]) -> Task:
    """Return the task of all clients together, whose metrics are pooled over them.

    Args:
        tasks: the clients, as tasks.
    """
    return replace(tasks[0], name=tasks[0].name.rpartition(" ")[0])


def only(problem: Problem, names: Sequence[str]) -> Problem:
    """Return the problem of those clients alone that are called ``names``; the others are idle."""
    (task,) = problem.tasks
    others = [c for c in clients(problem).tolist() if name_of(task.name, c) not in names]
    return replace(problem, data=Seen(problem.data, np.array(others, np.int64)))


def told(result: RunResult) -> RunResult:
    """Return a run as comparisons read it: with every client's metrics under its name as a task."""
    if not result.config.data.clients_are_tasks:
        return result
    return replace(result, records=[_told(record) for record in result.records])


def _told(record: RoundRecord) -> RoundRecord:
    if not record.evaluation:
        return replace(record, diagnostics=_diagnosed(record))
    evaluation = {
        split: values | _named((record.own or {}).get(split, {}))
        for split, values in record.evaluation.items()
    }
    return replace(record, evaluation=evaluation, diagnostics=_diagnosed(record))


def _named(own: dict[str, dict[str, float]]) -> Metrics:
    """Return measure and client -> value, as ``mine 3`` or ``mine 3/R2``."""
    found: Metrics = {}
    for measure, values in own.items():
        task, slash, metric = measure.partition("/")
        found |= {name_of(task, int(id)) + slash + metric: v for id, v in values.items()}
    return found


def _diagnosed(record: RoundRecord) -> dict[str, Any] | None:
    """Return the diagnostics with those of clients as those of tasks."""
    if not record.diagnostics or "clients" not in record.diagnostics:
        return record.diagnostics
    of_clients = dict(record.diagnostics["clients"])
    (task,) = record.loss or [""]
    of_clients["ids"] = [name_of(task, id) for id in of_clients["ids"]]
    return record.diagnostics | {"tasks": of_clients}
