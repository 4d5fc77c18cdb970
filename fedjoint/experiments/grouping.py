"""Groups of tasks that validation data choose, seed by seed.

The cosines of the tasks' updates in a joint run, see :mod:`fedjoint.experiments.cosines`, order the
tasks in a tree: average linkage, the distance of two tasks being one less their cosine. The tree
is cut into 1, 2, ..., T groups. Every cut is trained, and the best mean rank over tasks on the
validation data chooses. Neighbouring cuts differ in one group, so that there are 2T - 1 runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster import hierarchy

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Arm, Trained, Way
from fedjoint.experiments.client_tasks import compared
from fedjoint.experiments.cosines import mean_cosines
from fedjoint.experiments.groups import GROUPS, Groups, run_of_group
from fedjoint.experiments.statistics import mean_ranks
from fedjoint.experiments.ways import as_it_is
from fedjoint.model.tasks import Task
from fedjoint.problem import build_problem
from fedjoint.runs.result import RunResult


@dataclass(frozen=True)
class ChosenGroups(Way):
    """Trains every cut, and keeps the best; its plan is the joint run that the tree is from."""

    def train(self, config: Config) -> tuple[tuple[Task, ...], Trained]:
        """Return the tasks, and the runs of the chosen groups, with those that are not chosen.

        Raises:
            UserError: nobody can be trained, or no two tasks have a cosine.
        """
        problem = build_problem(config)
        tasks = compared(config, problem)
        names = [task.name for task in tasks]
        (joint,) = self.runs(self.plan(_diagnosed(config)))
        found = {tuple(names): joint}
        partitions = cuts(mean_cosines(joint.records, names), names)
        for group in dict.fromkeys(tuple(group) for cut in partitions for group in cut):
            if group not in found:
                (found[group],) = self.runs([run_of_group(config, problem, group, len(found))])
        made = [tuple(found[tuple(group)] for group in cut) for cut in partitions]
        number = best(made, tasks)
        kept = {tuple(group) for group in partitions[number]}
        others = tuple(run for group, run in found.items() if group not in kept)
        clients = int((problem.data.sizes > 0).sum())
        return tasks, Trained(made[number], clients, others)


def cuts(cosines: np.ndarray, names: Sequence[str]) -> list[Groups]:
    """Return the partitions of tasks into 1, 2, ..., T groups, by average linkage.

    Args:
        cosines: ``[T, T]``, of the tasks' updates; NaN, which is not known, counts as 0.
        names: of the tasks.

    Raises:
        UserError: no two tasks have a cosine.
    """
    pairs = cosines[np.triu_indices(len(names), 1)]
    if np.isnan(pairs).all():
        raise UserError(
            "--groups auto: no two tasks have a cosine, as the same clients send one update for "
            "all; name the groups, or take a strategy that tells tasks apart, such as pcgrad"
        )
    distance = 1 - np.nan_to_num(pairs)
    clusters = {at: [at] for at in range(len(names))}
    found = [list(clusters.values())]
    for row in hierarchy.average(distance):
        one, other = int(row[0]), int(row[1])
        clusters[len(names) + len(found) - 1] = sorted(clusters.pop(one) + clusters.pop(other))
        found.append(sorted(clusters.values()))
    return [[[names[at] for at in group] for group in cut] for cut in reversed(found)]


def best(cuts: Sequence[tuple[RunResult, ...]], tasks: Sequence[Task]) -> int:
    """Return the number of the cut with the best mean rank over tasks on validation data.

    Of equals it is the first. What is not finite ranks last.

    Args:
        cuts: the runs of each.
        tasks: the tasks.
    """
    arms = [Arm(GROUPS, tuple(tasks), [Trained(runs, 1)]) for runs in cuts]
    scores = {str(at): [a.best(t.name, "valid")[0] for t in tasks] for at, a in enumerate(arms)}
    ranks = mean_ranks(scores, [task.metric_fn.higher_is_better for task in tasks])
    return min(range(len(cuts)), key=lambda at: ranks[str(at)])


def _diagnosed(config: Config) -> Config:
    """Return ``config`` with diagnostics, which a trial, say, does without."""
    every = config.diagnostics.every
    if 0 < every <= config.rounds:
        return config
    diagnostics = config.diagnostics.model_copy(update={"every": 1})
    return config.model_copy(update={"diagnostics": diagnostics})


CHOSEN_GROUPS = ChosenGroups(GROUPS, as_it_is)
