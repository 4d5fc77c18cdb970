"""One backbone per task: each task's clients train among themselves, as the joint run trains all.

What separates this from training alone is more data for the task; what separates joint training
from this is transfer across tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedjoint.config.schema import Config
from fedjoint.experiments.arms import Way
from fedjoint.experiments.subsets import run_of
from fedjoint.experiments.ways import whole
from fedjoint.problem import Problem, build_problem


def by_task(config: Config, problem: Problem) -> Iterator[tuple[Config, Problem]]:
    """Yield, for each task, a run of the clients that have it, with ``config``'s settings.

    See :func:`fedjoint.experiments.subsets.run_of`.

    Raises:
        UserError: no client has a training example of a task.
    """
    for task in problem.tasks:
        made, own = run_of(config, problem, [task.name])
        yield made.model_copy(update={"name": f"{config.name}-{task.name}"}), own


def _runs(config: Config) -> list[tuple[Config, Problem]]:
    return list(by_task(config, build_problem(config)))


PER_TASK = Way("per task", _runs)
WHOLE_PER_TASK = Way("per task, whole model", lambda config: _runs(whole(config)))
