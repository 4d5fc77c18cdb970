"""Which ways of training a comparison compares, and what is tuned for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedjoint.config.schema import Config
from fedjoint.experiments.arms import OnRun, Run, Way
from fedjoint.experiments.centralised import CENTRALISED, CENTRALISED_PER_TASK
from fedjoint.experiments.client_tasks import compared
from fedjoint.experiments.grouping import CHOSEN_GROUPS
from fedjoint.experiments.groups import GROUPS, in_groups, read_groups
from fedjoint.experiments.per_task import PER_TASK, WHOLE_PER_TASK
from fedjoint.experiments.search import Search
from fedjoint.experiments.tune import Tuner, check_validation
from fedjoint.experiments.ways import ALONE, JOINT, WHOLE
from fedjoint.problem import Problem, build_problem

#: What ``--groups`` says where validation data choose the groups.
CHOOSE = "auto"

#: Arms with everyone's data in one place.
POOLED = (CENTRALISED.name, CENTRALISED_PER_TASK.name)

_ONE_TASK = {
    PER_TASK.name: "with one task, it is joint training",
    GROUPS: "with one task, it is joint training",
    WHOLE_PER_TASK.name: "with one task, it is joint training",
    CENTRALISED_PER_TASK.name: "with one task, it is centralised training",
}

_CLIENTS_ARE_TASKS = {
    PER_TASK.name: "clients are tasks, so it is training alone",
    WHOLE_PER_TASK.name: "clients are tasks, so it is training alone",
    CENTRALISED.name: f"clients are tasks: one model of all of them is {WHOLE.name}",
    CENTRALISED_PER_TASK.name: "clients are tasks, so it is training alone",
}


@dataclass(frozen=True)
class More:
    """What a comparison has beside training alone, per task, jointly and in one place.

    Attributes:
        full: also train a centralised model per task.
        whole: also train per task and jointly with heads that are shared among the clients of
            their task, as FedAvg of a whole model does. Where clients are tasks, it is done anyway.
        groups: also train groups of tasks, each jointly by itself: which ones, see
            :func:`fedjoint.experiments.groups.read_groups`, or ``auto``: validation data choose.
    """

    full: bool = False
    whole: bool = False
    groups: str | None = None


@dataclass(frozen=True)
class Contest:
    """What is to be compared.

    Attributes:
        config: of every way, before it is tuned.
        problem: of the first seed.
        seeds: how many.
        ways: the ways of training.
        left_out: ways that are not there, and why.
        tuner: chooses their settings.
    """

    config: Config
    problem: Problem
    seeds: int
    ways: list[Way]
    left_out: dict[str, str]
    tuner: Tuner


def contest(
    config: Config,
    seeds: int,
    more: More,
    search: Search | None,
    on_run: OnRun,
    run: Run | None = None,
) -> Contest:
    """Return what is to be compared.

    Args:
        config: the joint run.
        seeds: how many.
        more: what else is compared.
        search: what is tuned, alike for every way; None: nothing.
        on_run: hears of each trial as it starts.
        run: see :class:`fedjoint.experiments.arms.Way`.

    Raises:
        UserError: a setting is wrong.
    """
    evaluate = config.evaluate.model_copy(update={"train": True})  # in the best round, too
    config = config.model_copy(update={"evaluate": evaluate})
    first = build_problem(config)
    grouped = [_grouped(more.groups, config, first)] if more.groups is not None else []
    wholes = [WHOLE_PER_TASK, WHOLE] if more.whole or config.data.clients_are_tasks else []
    pooled = [CENTRALISED, *([CENTRALISED_PER_TASK] if more.full else [])]
    ways = [ALONE, PER_TASK, *grouped, JOINT, *wholes, *pooled]
    absent = _absent(config, first)
    left_out = {way.name: absent[way.name] for way in ways if way.name in absent}
    ways = [replace(way, run=run) for way in ways if way.name not in absent]
    tuner = Tuner(search, first, config.seed + seeds, on_run)
    tuner.check([(way, config) for way in ways])
    return Contest(config, first, seeds, ways, left_out, tuner)


def _absent(config: Config, problem: Problem) -> dict[str, str]:
    """Return the ways that would be another one once more, and why."""
    if config.data.clients_are_tasks:
        return _CLIENTS_ARE_TASKS
    return _ONE_TASK if len(problem.tasks) == 1 else {}


def _grouped(text: str, config: Config, problem: Problem) -> Way:
    """Return the way of training groups of tasks."""
    if text != CHOOSE:
        names: Sequence[str] = [task.name for task in compared(config, problem)]
        return in_groups(read_groups(text, names))
    check_validation(problem, f"--groups {CHOOSE}")
    return CHOSEN_GROUPS
