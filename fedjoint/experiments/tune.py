"""Tuning: every arm tries as many settings, and validation data choose among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedjoint.config.schema import Config
from fedjoint.data.loading import load_client
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Arm, OnRun, Way, run_arm
from fedjoint.experiments.client_tasks import compared
from fedjoint.experiments.kept import DamagedError
from fedjoint.experiments.search import Search, concerns, trials, value_of, with_values
from fedjoint.experiments.statistics import mean_ranks
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        values: setting -> value.
        valid: task -> metric on the validation data, NaN where it is undefined.
        rank: mean rank of the trial among the arm's, over tasks; one is best.
        failed: why it could not be trained; empty where it could.
    """

    values: dict[str, Any]
    valid: dict[str, float]
    rank: float = math.nan
    failed: str = ""


@dataclass(frozen=True)
class Tuning:
    """What was tried for an arm.

    Attributes:
        arm: its name.
        seed: of the data and the training of all trials.
        trials: what was tried.
        best: number of the trial that was chosen.
        config: what was chosen.
    """

    arm: str
    seed: int
    trials: list[Trial]
    best: int
    config: Config

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per trial: its values, validation metrics, mean rank, and whether chosen.

        The rank is what chooses; a trial that loses a task's metric loses to one that does not.
        """
        return [
            {"arm": self.arm, "seed": self.seed, "trial": number}
            | trial.values
            | {f"valid {task}": value for task, value in trial.valid.items()}
            | {"mean rank": trial.rank, "chosen": number == self.best, "failed": trial.failed}
            for number, trial in enumerate(self.trials)
        ]


class Tuner:
    """Chooses the settings of every arm; without a search, it leaves them as they are.

    Args:
        search: what is tried.
        problem: of the first seed.
        seed: of all trials.
        on_run: hears of each trial as it starts.

    Attributes:
        found: what was tried, by arm.
    """

    def __init__(self, search: Search | None, problem: Problem, seed: int, on_run: OnRun) -> None:
        self.search, self.problem, self.seed, self.on_run = search, problem, seed, on_run
        self.found: dict[str, Tuning] = {}

    def check(self, arms: Sequence[tuple[Way, Config]]) -> None:
        """Refuse a search that cannot be made, before anything is trained.

        Raises:
            UserError: a setting or a value is wrong, a setting makes no difference to any of
                ``arms``, or no client has validation data.
        """
        if self.search is None:
            return
        for key in self.search.over:
            if not any(concerns(key, way, config) for way, config in arms):
                raise UserError(f"--tune-over {key}: no arm has such a setting; leave it out")
        for way, config in arms:
            trials(way, config, self.search, self.seed)
        check_validation(self.problem, "--tune")

    def settings(self, way: Way, config: Config) -> Config:
        """Return the settings of an arm, tuned where there is a search.

        Raises:
            UserError: no trial could be trained.
        """
        if self.search is None:
            return config
        points = trials(way, config, self.search, self.seed)
        tuning = tune(way, config, points, compared(config, self.problem), self.seed, self.on_run)
        self.found[way.name] = tuning
        return tuning.config


def check_validation(problem: Problem, what: str) -> None:
    """Refuse what validation data choose, where there are none.

    Args:
        problem: whose clients should have them.
        what: the option that asks for it.

    Raises:
        UserError: no client has validation data.
    """
    clients = range(len(problem.data.sizes))
    if not any(len(load_client(problem.data, index).valid) for index in clients):
        raise UserError(f"{what} needs validation data: set data.valid_fraction")


def trained(way: Way, config: Config, seeds: int, tuner: Tuner, on_run: OnRun) -> Arm:
    """Return an arm of ``seeds`` seeds, with the settings that ``tuner`` chooses.

    Raises:
        UserError: nobody can be trained, or a run merges in no round.
    """
    return run_arm(way, tuner.settings(way, config), seeds, on_run=on_run)


def tune(
    way: Way,
    config: Config,
    points: Sequence[dict[str, Any]],
    tasks: Sequence[Task],
    seed: int,
    on_run: OnRun = lambda name, seed: None,
) -> Tuning:
    """Train with each of ``points``; choose the best mean rank over tasks on validation data.

    Ranks, as metrics are of different scales, and R2 has no lower bound. All trials are of one
    seed, which should be none of those that are tested: then no split is both tuned on and
    reported. Of re-splits of one data set it still validates on examples that other seeds test,
    for every arm alike. An arm of one run per task has one setting for all of them.

    Args:
        way: how to train.
        config: what the points change.
        points: setting -> value, of each trial.
        tasks: the tasks.
        seed: of data and training.
        on_run: hears of each trial as it starts.

    Raises:
        UserError: no trial could be trained.
    """
    keys = list(dict.fromkeys(key for values in points for key in values))
    found = []
    for number, values in enumerate(points):
        made = _plainly(with_values(config, values), seed, number)
        shown = {key: value_of(made, key) for key in keys}
        on_run(f"{way.name}, trial {number + 1} of {len(points)}", seed)
        found.append(_try(way, made, shown, tasks))
    if all(trial.failed for trial in found):
        raise UserError(f"{way.name}: no trial could be trained; the last one: {found[-1].failed}")
    ranks = mean_ranks(
        {str(number): list(trial.valid.values()) for number, trial in enumerate(found)},
        [task.metric_fn.higher_is_better for task in tasks],
    )
    ranked = [replace(t, rank=ranks[str(number)]) for number, t in enumerate(found)]
    best = min(range(len(ranked)), key=lambda number: _badness(ranked[number]))
    return Tuning(way.name, seed, ranked, best, with_values(config, points[best]))


def _try(way: Way, config: Config, values: dict[str, Any], tasks: Sequence[Task]) -> Trial:
    try:
        arm = run_arm(way, config, 1)
    except DamagedError:
        raise
    except UserError as error:
        return Trial(values, {task.name: math.nan for task in tasks}, failed=str(error))
    valid = {task.name: arm.best(task.name, "valid")[0] for task in tasks}
    return Trial(values, valid)


def _badness(trial: Trial) -> tuple[bool, int, float]:
    """Return what is least for the best trial."""
    return bool(trial.failed), sum(map(math.isnan, trial.valid.values())), trial.rank


def _plainly(config: Config, seed: int, number: int) -> Config:
    """Return a trial's run: without what does not choose."""
    evaluate = config.evaluate.model_copy(update={"train": False})
    diagnostics = config.diagnostics.model_copy(update={"every": 0})
    name = f"{config.name}-trial{number}"
    update = {"seed": seed, "evaluate": evaluate, "diagnostics": diagnostics, "name": name}
    return config.model_copy(update=update)
