"""Each task trained in the way that is best on its validation data: where joining hurts, it ends.

Nothing is trained for it: it is made of arms that are there. The test data have no say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedjoint.experiments.arms import Arm, Trained, sign
from fedjoint.model.tasks import Task
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.result import RunResult

AUTO = "auto"


@dataclass(frozen=True)
class Picked(Trained):
    """One seed.

    Attributes:
        sources: task -> the arm that is best on its validation data, and what the seed left there.
    """

    sources: dict[str, tuple[Arm, Trained]] = field(default_factory=dict)

    def of(self, task: str) -> RunResult | None:
        return self.sources[task][1].of(task)


class Auto(Arm):
    """An arm whose tasks are trained in several ways, seed by seed."""

    def picks(self, task: str) -> Counter[str]:
        """Return arm -> in how many seeds it is the task's, the most frequent first."""
        return Counter(arm.name for arm, _ in self._sources(task))

    def chosen(self, seed: Trained, task: str) -> list[RoundRecord]:
        assert isinstance(seed, Picked)
        arm, own = seed.sources[task]
        return arm.chosen(own, task)

    def _sources(self, task: str) -> Iterator[tuple[Arm, Trained]]:
        for seed in self.seeds:
            assert isinstance(seed, Picked)
            yield seed.sources[task]


def auto(arms: Sequence[Arm]) -> Auto:
    """Pick an arm for each task and seed, by the task's validation metric in the arm's best round.

    Where clients are tasks, one arm is picked for all, by their pooled validation data in the
    arm's best round by these: a client's own are few, and favour the arm whose round each client
    picks by them, which is training alone. Groups have no pooled metric, and are not picked.

    Args:
        arms: of the same tasks and seeds; of equals, the first is picked.
    """
    tasks, pooled = arms[0].tasks, arms[0].pooled
    found = Auto(AUTO, tasks, pooled=pooled)
    for at in range(len(arms[0].seeds)):
        picked = {task.name: _best(arms, pooled or task, at) for task in tasks}
        picked |= {pooled.name: _best(arms, pooled, at)} if pooled else {}
        sources = {name: (arm, arm.seeds[at]) for name, arm in picked.items()}
        known = [run for name, (_, own) in sources.items() if (run := own.of(name))]
        runs = {id(run): run for run in known}
        clients = max(own.clients for _, own in sources.values())
        found.seeds.append(Picked(tuple(runs.values()), clients, sources=sources))
    return found


def _best(arms: Sequence[Arm], task: Task, at: int) -> Arm:
    def badness(arm: Arm) -> float:
        known = arm.peak(task) if arm.pooled else arm.best(task.name, "valid")
        value = sign(task) * known[at]
        return math.inf if math.isnan(value) else -value

    return min(arms, key=badness)


def in_words(arm: Auto) -> Iterator[str]:
    """Yield a line for each task: which arms it has, in how many seeds.

    Where clients are tasks, it is one line of all.
    """
    if arm.pooled:
        counted: Counter[str] = Counter()
        for task in arm.tasks:
            counted += arm.picks(task.name)
        counts = ", ".join(f"{name} ({count})" for name, count in counted.most_common())
        yield f"auto: clients in {len(arm.seeds)} seeds: {counts}"
        return
    for task in arm.tasks:
        picks = arm.picks(task.name).most_common()
        counts = ", ".join(f"{name} ({count})" for name, count in picks)
        yield f"auto: {task.name}: {counts} of {len(arm.seeds)} seeds"
