"""Centralised training: everyone's data in one place, the upper reference of a comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedjoint.config.schema import Config, LocalConfig
from fedjoint.data.pool import pooled
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Way
from fedjoint.experiments.per_task import by_task
from fedjoint.problem import Problem, build_problem


def centralised(config: Config, problem: Problem) -> tuple[Config, Problem]:
    """Return the run of one client that has everyone's data and trains alone, in this process.

    It sees as many examples in a round as the clients that train in one do together. Where a
    client has few of the tasks, the clients' learning rate may be too large for it: it adds up
    the gradients of all tasks, each from the few labels in a batch that are of this task.

    Args:
        config: the joint run.
        problem: the clients'.

    Raises:
        UserError: clients are in groups.
    """
    if problem.groups:
        raise UserError("clients in groups have different models: no one model has all data")
    clients = problem.data.sizes
    local = config.local.model_copy(
        update={
            "method": "independent",
            "options": {},
            "epochs": None,
            "steps": _steps(config.local, clients, config.strategy.fraction),
            "lr_scales": [],
            # One client gains nothing from a batched program.
            "path": config.local.path if config.local.alone else "sequential",
        }
    )
    strategy = config.strategy.model_copy(
        update={"name": "fedavg", "options": {}, "fraction": 1.0, "min_clients": 1}
    )
    engine = config.engine.model_copy(update={"name": "inline"})
    update = {"local": local, "strategy": strategy, "engine": engine}
    pool = replace(problem, data=pooled(problem.data, problem.tasks))
    return config.model_copy(update=update), pool


def _steps(local: LocalConfig, sizes: np.ndarray, fraction: float) -> int:
    """Return the steps of a round in which one model sees as many examples as the clients do.

    Args:
        local: the clients' budget.
        sizes: ``[clients]`` their training examples.
        fraction: share of the clients that take part in a round.
    """
    if local.steps is None:
        seen = (local.epochs or 1) * sizes
    else:
        seen = local.steps * np.minimum(local.batch_size, sizes)
    batch = min(local.batch_size, int(sizes.sum()))
    return max(1, round(fraction * int(seen.sum()) / batch))


def _one_model(config: Config) -> list[tuple[Config, Problem]]:
    return [centralised(config, build_problem(config))]


def _a_model_per_task(config: Config) -> list[tuple[Config, Problem]]:
    return [centralised(*run) for run in by_task(config, build_problem(config))]


CENTRALISED = Way("centralised", _one_model, merges=False)
CENTRALISED_PER_TASK = Way("centralised per task", _a_model_per_task, merges=False)
