"""Tables of what arms cost, of how they treat single clients, and of what was tuned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from fedjoint.experiments.arms import Arm, mean
from fedjoint.experiments.search import RATE
from fedjoint.experiments.tables import side_by_side, table
from fedjoint.experiments.tune import Tuning

#: What is told of a task's clients, see :meth:`fedjoint.experiments.arms.Arm.spread`.
SPREAD = {
    "std": "standard deviation over a task's clients",
    "worst": "a task's worst client",
    "worst_tenth": "a task's worst tenth of clients",
}


def budgets(arms: Iterable[Arm]) -> Table:
    """Return the table of what a seed of each arm takes, its runs together.

    Steps are gradient steps, over clients with training examples and of all of them. Conflicts
    are the share of pairs of clients whose updates point apart.
    """
    cells = [
        [
            arm.name,
            _number(arm.rate, "g"),
            f"{mean(arm.steps_per_client):,.0f}",
            f"{mean(arm.steps):,.0f}",
            f"{mean(arm.megabytes):,.1f}",
            f"{mean(arm.seconds):,.1f}",
            str(sum(arm.kept)),
            _number(mean(share for _, share in arm.conflicts()), ".0%"),
        ]
        for arm in arms
    ]
    headers = [
        "arm",
        "learning\nrate",
        "steps a\nclient",
        "steps\nin all",
        "MB sent\nto train",
        "seconds",
        "rounds\nkept",
        "con-\nflicts",
    ]
    return table("what a seed takes, the mean over seeds", headers, cells)


def spreads(arms: Sequence[Arm]) -> Iterator[Table]:
    """Yield tables of each task's spread over its clients, where two or more have its metric.

    Of ten clients or fewer, the worst tenth is the worst one: both have one table then.
    """
    names, pooled = [arm.name for arm in arms], arms[0].pooled
    tasks = (pooled,) if pooled else arms[0].tasks
    found = {
        what: np.array([[mean(arm.spread(t.name, what)) for arm in arms] for t in tasks])
        for what in SPREAD
    }
    titles = dict(SPREAD)
    if np.array_equal(found["worst"], found["worst_tenth"], equal_nan=True):
        titles["worst"] += ", which is its worst tenth"
        del titles["worst_tenth"]
    for what, title in titles.items():
        if np.isnan(found[what]).all():
            continue
        cells = {
            f"{task.name}\n{task.metric_fn.name}": [_number(value, ".2f") for value in values]
            for task, values in zip(tasks, found[what].tolist(), strict=True)
        }
        yield from side_by_side(f"{title}: test metric, mean over seeds", "arm", names, cells)


def tried(tuning: Mapping[str, Tuning], rate: float) -> Table | str:
    """Return the table of what was tuned, or the words that nothing was.

    Args:
        tuning: by arm.
        rate: the learning rate of the scenario.
    """
    if not tuning:
        return (
            f"untuned: every arm takes the scenario's own settings, {RATE} = {rate:g} among them; "
            "--tune N tries N for each"
        )
    rows = []
    for arm, found in tuning.items():
        for key in found.trials[0].values:
            values = [_value(trial.values[key]) for trial in found.trials]
            rows.append([arm, key, values[found.best], " ".join(values)])
    title = f"tuned alike, by the validation data of seed {next(iter(tuning.values())).seed}"
    return table(title, ["arm", "setting", "chosen", "tried"], rows, left=4, grouped=True)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float, spec: str) -> str:
    if math.isnan(value):
        return ""
    return f"{value:{spec}}" if abs(value) < 1000 else f"{value:.1e}"
