"""The predictor that learns nothing from inputs: what any way of training has to beat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.data.loading import load_client
from fedjoint.experiments.arms import Arm, mean, sign
from fedjoint.experiments.client_tasks import clients, name_of
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem


def trivial(problem: Problem) -> dict[str, float]:
    """Return task -> test metric, pooled over clients, of each client's constant prediction.

    A client predicts the most frequent class of its own training labels, of each label of a
    multilabel task whether most of its examples have it, or the mean of its targets. NaN where no
    client has test labels.
    """
    return {task.name: _of_task(problem, task, at) for at, task in enumerate(problem.tasks)}


def trivial_by_client(problem: Problem) -> dict[str, float]:
    """Return client, as a task, -> test metric of its constant prediction, and that of all pooled.

    For clients that are tasks, see :func:`trivial`.
    """
    (task,) = problem.tasks
    each = {c: _sums(problem, task, c) for c in clients(problem).tolist()}
    found = {name_of(task.name, c): float(task.metric_fn.value(s)) for c, s in each.items()}
    return found | trivial(problem)


def _of_task(problem: Problem, task: Task, at: int) -> float:
    total: Tensor | None = None
    for index in problem.data.tasks[:, at].nonzero()[0].tolist():
        sums = _sums(problem, task, index)
        total = sums if total is None else total + sums
    return math.nan if total is None else float(task.metric_fn.value(total))


def _sums(problem: Problem, task: Task, index: int) -> Tensor:
    """Return ``[k]``, the metric's statistics of a client's constant prediction."""
    client = load_client(problem.data, index)
    labels = client.test.y[task.name]
    output = task.form.constant(client.train.y[task.name], task.outputs, task.size)
    outputs = output.expand(len(labels), *output.shape[1:])
    return task.metric_fn.summed(outputs[None], labels[None])[0].double()


def idle(
    tasks: Sequence[Task], arms: Iterable[Arm], scores: Mapping[str, list[float]]
) -> list[str]:
    """Return the tasks on which no arm's mean over seeds is better than the trivial predictor's.

    Args:
        tasks: the tasks.
        arms: all arms.
        scores: task -> the trivial predictor's metric, by seed.
    """
    arms = list(arms)

    def is_learnt(task: Task) -> bool:
        least = sign(task) * mean(scores[task.name])
        means = [sign(task) * mean(arm.best(task.name)) for arm in arms]
        return not math.isfinite(least) or any(value > least for value in means)

    return [task.name for task in tasks if not is_learnt(task)]


def by_seed(config: Config, seeds: int) -> dict[str, list[float]]:
    """Return task -> test metric of the trivial predictor, for each of ``seeds`` seeds."""
    found: dict[str, list[float]] = {}
    for seed in range(config.seed, config.seed + seeds):
        problem = build_problem(config.model_copy(update={"seed": seed}))
        scores = trivial_by_client if config.data.clients_are_tasks else trivial
        for task, score in scores(problem).items():
            found.setdefault(task, []).append(score)
    return found
