"""What is printed of which tasks help which."""

from __future__ import annotations

import math

from rich.console import Console

from fedjoint.experiments.affinity import Affinity, Pair
from fedjoint.experiments.costs import budgets, tried
from fedjoint.experiments.intervals import how
from fedjoint.experiments.tables import table


def show_affinity(found: Affinity, rate: float, console: Console) -> None:
    """Print the effects of tasks on one another, how both measures agree, and what it took.

    Args:
        found: the arms.
        rate: the scenario's learning rate.
        console: where to print.
    """
    headers = ["tasks", "", "first on\nsecond", "second on\nfirst", "mean\nof both", "cosine"]
    title = "which tasks help which: test metric with a task less without it"
    console.print(table(title, headers, [_row(pair) for pair in found.pairs], left=2))
    console.print(how(found.overlap))
    console.print("effects: mean and 95 % interval over seeds; above zero, training together helps")
    console.print("share, do not share: the interval of the mean of both is clear of zero")
    if any(pair.both.half == 0 for pair in found.pairs):
        console.print("± 0: seeds that all moved alike settle nothing; take more")
    count = len(found.pairs)
    console.print(
        f"no correction for {count} pairs: of pairs without effect, one in twenty looks settled"
    )
    console.print("cosine: of the tasks' mean updates in the joint run, mean over its rounds")
    console.print(_agreement(found), markup=False)
    console.print()
    console.print(budgets([found.joint, *found.without.values()]))
    console.print(tried(found.tuning, rate))


def _row(pair: Pair) -> list[str]:
    effects = (f"{each:+.3f}" for each in (pair.onto_second, pair.onto_first, pair.both))
    cosine = "" if math.isnan(pair.cosine.mean) else f"{pair.cosine.mean:+.2f}"
    return [f"{pair.first}, {pair.second}", pair.advice, *effects, cosine]


def _agreement(found: Affinity) -> str:
    rank, pairs = found.agreement
    between = "between the mean of both effects and the cosine"
    if rank is None:
        return f"no rank correlation {between}: {pairs} pairs have both, or all are alike"
    return f"Spearman's rank correlation {between}, over {pairs} pairs: {rank:+.2f}"
