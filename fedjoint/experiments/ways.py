"""Joint training, with private or shared heads, and everyone alone on the same local budget."""

from __future__ import annotations

from fedjoint.config.schema import Config
from fedjoint.experiments.arms import Way
from fedjoint.problem import Problem, build_problem


def as_it_is(config: Config) -> list[tuple[Config, Problem]]:
    """Return the one run that ``config`` describes."""
    return [(config, build_problem(config))]


def independent(config: Config) -> Config:
    """Return ``config`` with every client training alone, on the same local budget."""
    strategy = config.strategy.model_copy(update={"name": "fedavg", "options": {}})
    local = config.local.model_copy(update={"method": "independent", "options": {}})
    return config.model_copy(update={"strategy": strategy, "local": local})


def whole(config: Config) -> Config:
    """Return ``config`` with heads that are shared among the clients of their task."""
    return config.model_copy(update={"model": config.model.model_copy(update={"heads": "shared"})})


JOINT = Way("joint", as_it_is)
ALONE = Way("alone", lambda config: as_it_is(independent(config)), merges=False, alone=True)
WHOLE = Way("joint, whole model", lambda config: as_it_is(whole(config)))
