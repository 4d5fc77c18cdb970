"""Plots of runs and comparisons, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from fedjoint.experiments.affinity import Affinity
from fedjoint.experiments.arms import Arm, mean
from fedjoint.experiments.suite_table import ALL, GAINS
from fedjoint.experiments.transfer import Transfer
from fedjoint.runs.files import drafted
from fedjoint.runs.record import RoundRecord

#: Most arms whose range over seeds is drawn: more hide one another.
_RANGES = 6


def convergence(arms: Sequence[Arm], path: Path) -> None:
    """Draw the test metric over rounds: one panel per task, one line per arm (mean of seeds).

    With few arms, a band shows the range over seeds. Where clients are tasks, the one panel is of
    all together.
    """
    pooled = arms[0].pooled
    tasks = (pooled,) if pooled else arms[0].tasks
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.6 * len(tasks), 3.6), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for arm, colour in zip(arms, _colours(len(arms)), strict=True):
            curves = [dict(arm.curve(seed, task.name)) for seed in range(len(arm.seeds))]
            rounds = sorted(set().union(*curves))
            values = [[curve[r] for curve in curves if r in curve] for r in rounds]
            axis.plot(rounds, [mean(v) for v in values], label=arm.name, color=colour)
            if len(arms) <= _RANGES:
                low, high = [min(v) for v in values], [max(v) for v in values]
                axis.fill_between(rounds, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.set(title=task.name, xlabel="round", ylabel=task.metric_fn.name)
        _cut(axis)
    _legend(figure, axes[0][0])
    _save(figure, path)


def conflict(arms: Sequence[Arm], path: Path) -> str | None:
    """Draw the share of pairs of clients whose updates conflict, over rounds.

    An arm has the colour that it has in :func:`convergence`.

    Returns:
        Why nothing is drawn; None where it is.
    """
    shares = [arm.conflicts() for arm in arms]
    if not any(shares):
        return "no plot of conflicts: no round has diagnostics"
    figure, axis = plt.subplots(figsize=(6, 3.6))
    for arm, found, colour in zip(arms, shares, _colours(len(arms)), strict=True):
        if found:
            axis.plot(*zip(*found, strict=True), label=arm.name, color=colour)
    axis.set(xlabel="round", ylabel="conflicting pairs of clients", ylim=(0, 1))
    _legend(figure, axis)
    _save(figure, path)
    return None


def task_cosines(records: Sequence[RoundRecord], path: Path) -> str | None:
    """Draw how the tasks agree, in the last rounds that tell it.

    On the left the cosines between the tasks' mean updates, of which those of the very same clients
    have none; on the right those between the gradients of tasks of one client.

    Returns:
        Why nothing is drawn; None where it is.
    """
    maps = {
        "task updates": _newest(records, "tasks"),
        "gradients within clients": _newest(records, "within"),
    }
    drawn = {what: found for what, found in maps.items() if found and _compares(found[1])}
    if not any(maps.values()):
        return "no map of the cosines between tasks: no round has diagnostics"
    if maps["task updates"] and len(maps["task updates"][1]["ids"]) < 2:
        return "no map of the cosines between tasks: there is one task"
    if not drawn:
        return "no map of the cosines between tasks: no two tasks of different clients"
    figure, axes = plt.subplots(1, len(drawn), figsize=(4.2 * len(drawn), 3.5), squeeze=False)
    for axis, (what, (round, tasks)) in zip(axes[0], drawn.items(), strict=True):
        title = f"cosine of {what}, round {round}"
        _map(axis, np.array(tasks["cosine"], float), tasks["ids"], title, 1.0)
    _save(figure, path)
    return None


def affinity(found: Affinity, path: Path) -> None:
    """Draw which tasks help which: their effects on the left, the cosines of updates on the right.

    A row is the task that helps or hurts, a column the task that is measured.
    """
    names = found.names
    effects = np.full((len(names), len(names)), np.nan)
    for (one, other), values in found.effects.items():
        effects[names.index(one), names.index(other)] = np.mean(values)
    cosines = np.array([[mean(values) for values in row] for row in found.cosines.T])
    np.fill_diagonal(cosines, np.nan)
    largest = np.abs(effects).max(where=np.isfinite(effects), initial=1e-9)
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.5))
    _map(axes[0], effects, names, "effect of row on column, test metric", largest)
    _map(axes[1], cosines, names, "cosine of task updates, mean over rounds", 1.0)
    _save(figure, path)


def _map(axis: Any, values: np.ndarray, names: Sequence[str], title: str, largest: float) -> None:
    """Draw a square of numbers, red below zero and blue above."""
    image = axis.imshow(values, vmin=-largest, vmax=largest, cmap="RdBu")
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(title, fontsize="small")
    axis.figure.colorbar(image)


def _newest(records: Sequence[RoundRecord], kind: str) -> tuple[int, dict[str, Any]] | None:
    """Return the last round with diagnostics of a kind, and these."""
    found = [(r.round, (r.diagnostics or {}).get(kind, {})) for r in records]
    return next((each for each in reversed(found) if each[1].get("ids")), None)


def _compares(found: dict[str, Any]) -> bool:
    """Whether two different tasks have a cosine."""
    rows = enumerate(found["cosine"])
    return any(v is not None for i, row in rows for j, v in enumerate(row) if i != j)


def objective(records: Sequence[RoundRecord], path: Path) -> None:
    """Draw the joint objective and each task's local loss over rounds."""
    figure, axis = plt.subplots(figsize=(5, 3.2))
    rounds = [r.round for r in records]
    values = [float("nan") if r.objective is None else r.objective for r in records]
    axis.plot(rounds, values, "k", label="objective")
    for task in records[-1].loss:
        axis.plot(rounds, [r.loss.get(task, float("nan")) for r in records], label=task)
    axis.set(xlabel="round", ylabel="training loss", yscale="log")
    axis.legend(fontsize="small")
    _save(figure, path)


def of_run(records: Sequence[RoundRecord], folder: Path) -> str | None:
    """Draw a run: its objective, and the cosines between its tasks where it has any.

    Returns:
        What is not drawn, and why; None where all is.
    """
    names = "objective.png", "cosine.png"
    with drafted(folder, names) as draft:
        objective(records, draft / names[0])
        return task_cosines(records, draft / names[1])


def learning_curves(transfer: Transfer, path: Path) -> None:
    """Draw a task's test metric over the size of the training set, with 95 % intervals."""
    figure, axis = plt.subplots(figsize=(5.4, 3.6))
    ways = list(dict.fromkeys(point.way.name for point in transfer.points))
    for way, colour in zip(ways, _colours(len(ways)), strict=True):
        points = [point for point in transfer.points if point.way.name == way]
        means, halves = ([getattr(p.interval, part) for p in points] for part in ("mean", "half"))
        sizes = [point.size for point in points]
        axis.errorbar(sizes, means, halves, label=way, color=colour, capsize=3)
    metric = transfer.task.metric_fn.name
    axis.set(title=transfer.task.name, xlabel="training examples", ylabel=metric, xscale="log")
    _cut(axis)
    _legend(figure, axis)
    _save(figure, path)


def gains(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the gains of a suite with 95 % intervals: a row for each comparison, a column a part.

    Args:
        rows: see :func:`fedjoint.experiments.suite_table.rows_of`.
        path: of the file.
    """
    names = list(dict.fromkeys(row["comparison"] for row in rows))
    of = {n: [r for r in rows if r["comparison"] == n and r["task"] != ALL] for n in names}
    parts = list(GAINS)
    figure, axes = plt.subplots(
        len(names),
        len(parts),
        figsize=(3.2 * len(parts), 0.8 * len(names) + 0.28 * sum(map(len, of.values()))),
        squeeze=False,
        sharex="row",
        sharey="row",
        height_ratios=[1 + len(of[name]) for name in names],
    )
    for line, name in zip(axes, names, strict=True):
        for axis, part in zip(line, parts, strict=True):
            known = [(at, r) for at, r in enumerate(of[name]) if r.get(part) is not None]
            for at, row in known:
                half = row.get(f"{part} 95 %")
                axis.errorbar(row[part], at, xerr=half or 0, fmt="o", color="C0", capsize=3)
            axis.axvline(0, color="grey", linewidth=0.8)
            axis.set_yticks(range(len(of[name])), [row["task"] for row in of[name]])
            axis.set_ylim(len(of[name]) - 0.5, -0.5)
            axis.tick_params(labelsize="small")
        line[0].set_ylabel(name, fontsize="small")
    for axis, part in zip(axes[0], parts, strict=True):
        axis.set_title(part, fontsize="small")
    _save(figure, path)


def _colours(count: int) -> list[Any]:
    """Return a colour for each of ``count`` lines; beyond twenty they come again."""
    palette = plt.get_cmap("tab10" if count <= 10 else "tab20")
    return [palette(number % palette.N) for number in range(count)]


def _cut(axis: Any) -> None:
    """Show what is above -1: below is where R2 goes for a few rounds, and dwarfs the rest."""
    top = float(axis.dataLim.y1)
    if axis.get_ylim()[0] < -1 < top:
        axis.set_ylim(-1, top + 0.05 * (top + 1))


def _legend(figure: Any, axis: Any) -> None:
    """Put the legend of ``axis`` below all panels, where it hides no line."""
    handles, labels = axis.get_legend_handles_labels()
    columns = max(1, int(figure.get_figwidth() / 2))
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
