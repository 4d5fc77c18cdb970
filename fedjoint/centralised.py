"""Centralised training: everyone's data in one place, the upper reference of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedjoint.arms import Arm, OnRun, Prepare, mean, run_arm, sign
from fedjoint.config.schema import Config, LocalConfig
from fedjoint.data.pool import pooled
from fedjoint.problem import Problem, build_problem

NAME = "centralised"

#: Learning rates to try, as factors on the clients'.
FACTORS = (1.0, 1 / 4, 1 / 16)


def run_centralised(
    config: Config,
    seeds: int,
    rates: Sequence[float] = (),
    *,
    on_run: OnRun = lambda name, seed: None,
) -> tuple[Arm, float]:
    """Train one model of all tasks on everyone's data, as many passes over it as the clients make.

    The clients' learning rate does not suit it: where a client has one or two tasks and every
    label of its batch, this model adds up the gradients of all tasks, each from the few labels
    in a batch that are of this task. So the rate is chosen among ``rates``, by the validation
    data of the first seed.

    Args:
        config: the joint run.
        seeds: how many.
        rates: learning rates to choose from; by default the clients' times ``FACTORS``.
        on_run: hears of each run as it starts.

    Returns:
        The runs, and the rate they took.
    """
    rates = rates or [config.local.optimiser.lr * factor for factor in FACTORS]
    first = {rate: run_arm(NAME, config, 1, prepare=_at(rate), on_run=on_run) for rate in rates}
    best = max(first, key=lambda rate: _fitness(first[rate]))
    arm = first[best]
    if seeds > 1:
        later = config.model_copy(update={"seed": config.seed + 1})
        arm.runs += run_arm(NAME, later, seeds - 1, prepare=_at(best), on_run=on_run).runs
    return arm, best


def centralised(config: Config, rate: float) -> tuple[Config, Problem]:
    """Return the run of one client that has everyone's data and trains alone, in this process.

    Args:
        config: the joint run.
        rate: learning rate.
    """
    problem = build_problem(config)
    clients = problem.data.sizes
    problem = replace(problem, data=pooled(problem.data, problem.tasks))
    local = config.local.model_copy(
        update={
            "method": "independent",
            "options": {},
            "optimiser": config.local.optimiser.model_copy(update={"lr": rate}),
            "epochs": None,
            "steps": _steps(config.local, clients, config.strategy.fraction),
            "lr_scales": [],
            # One client gains nothing from a batched program.
            "sequential": True,
        }
    )
    strategy = config.strategy.model_copy(
        update={"name": "fedavg", "options": {}, "fraction": 1.0, "min_clients": 1}
    )
    engine = config.engine.model_copy(update={"name": "inline"})
    update = {"local": local, "strategy": strategy, "engine": engine}
    return config.model_copy(update=update), problem


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


def _at(rate: float) -> Prepare:
    return lambda config: centralised(config, rate)


def _fitness(arm: Arm) -> tuple[int, float]:
    """Return what is larger for the better rate; one that loses a task to divergence is worst."""
    found = [sign(task) * arm.final(task.name, "valid")[0] for task in arm.tasks]
    known = sum(map(math.isfinite, found))
    return known, mean(found) if known else -math.inf
