"""Groups of tasks: each is trained jointly by a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedjoint.config.schema import Config
from fedjoint.errors import UserError, choose
from fedjoint.experiments.arms import Arm, Way
from fedjoint.experiments.subsets import run_of
from fedjoint.problem import Problem, build_problem

#: Names of the tasks of each group.
Groups = Sequence[Sequence[str]]

#: What the arm is called.
GROUPS = "groups"


def read_groups(text: str, names: Sequence[str]) -> Groups:
    """Return the groups of ``--groups``, such as ``digit+parity,loop+ink``.

    Args:
        text: what the user writes.
        names: of the tasks.

    Raises:
        UserError: a task is unknown, in no group or in two, or a group is empty.
    """
    groups = [[name.strip() for name in part.split("+")] for part in text.split(",")]
    given = [name for group in groups for name in group]
    for name in given:
        if not name:
            raise UserError(f"--groups {text}: write tasks as in digit+parity,loop+ink")
        if name not in names:
            raise choose("task in --groups", name, names)
        if given.count(name) > 1:
            raise UserError(f"--groups {text}: {name} is there twice; put it in one group")
    if lacking := [name for name in names if name not in given]:
        raise UserError(
            f"--groups {text}: {', '.join(lacking)} is in no group; a task may be one by itself"
        )
    return groups


def in_groups(groups: Groups) -> Way:
    """Return the way of training these groups."""
    return Way(GROUPS, _planned(groups))


def run_of_group(
    config: Config, problem: Problem, group: Sequence[str], number: int
) -> tuple[Config, Problem]:
    """Return the run of a group, which is named by its number.

    Raises:
        UserError: no client has a training example of a task.
    """
    made, own = run_of(config, problem, group)
    return made.model_copy(update={"name": f"{config.name}-{number}"}), own


def shown(arm: Arm) -> list[str]:
    """Return the groups of an arm, by seed, as ``--groups`` takes them."""
    names = [task.name for task in arm.tasks]
    return [
        ",".join("+".join(n for n in names if n in run.metrics["test"]) for run in seed.runs)
        for seed in arm.seeds
    ]


def _planned(groups: Groups) -> Callable[[Config], list[tuple[Config, Problem]]]:
    def plan(config: Config) -> list[tuple[Config, Problem]]:
        problem = build_problem(config)
        return [run_of_group(config, problem, group, at) for at, group in enumerate(groups)]

    return plan
