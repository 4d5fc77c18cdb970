"""The tasks of a run, with the metrics that the server works out from what nodes count."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.problem import build_problem, with_metrics

log = logging.getLogger("fedjoint.server.roster")


class KnownTasks:
    """Completes what nodes say of tasks, which is all but their metrics.

    Args:
        config: the run's configuration.
        given: tasks with metrics of their own.
    """

    def __init__(self, config: Config, given: Sequence[Task]) -> None:
        self._config = config
        self._given = {task.name: task for task in given}

    def of(self, task: Task) -> Task:
        """Return a task with its metrics: those given, those that are configured, or its kind's.

        Raises:
            UserError: a metric is none, or not for such a task.
        """
        if task.name in self._given:
            return self._given[task.name]
        own = {n: named for n, named in self._config.metrics.items() if n == task.name}
        return with_metrics([task], own)[0]

    def check(self, task: Task, metrics: Sequence[str]) -> None:
        """Make sure that a task of a node is measured by the same metrics here.

        A problem that is written in Python may bring some; then it is built here, too.

        Args:
            task: as the node describes it.
            metrics: their names there.

        Raises:
            UserError: it is not.
        """
        here = _names(self.of(task))
        if here == list(metrics):
            return
        own = self._built.get(task.name)
        if own is None or own.bare != task or _names(own) != list(metrics):
            raise UserError(
                f"task {task.name!r} is measured by {', '.join(metrics)} there, by "
                f"{', '.join(here)} on the server: name its metrics in the configuration, under "
                f"metrics.{task.name}"
            )
        self._given[task.name] = own

    @cached_property
    def _built(self) -> dict[str, Task]:
        """The tasks of the problem that the configuration names; none where it is not for here."""
        if not self._config.problem:
            return {}
        try:
            return {task.name: task for task in build_problem(self._config).tasks}
        except UserError as error:  # its data may be on the nodes alone
            log.warning("the server cannot build the run's problem: %s", error)
            return {}


def _names(task: Task) -> list[str]:
    return [metric.name for metric in task.metrics]
