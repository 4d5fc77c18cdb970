"""Plots of runs and comparisons, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from fedjoint.arms import Arm, mean


def convergence(arms: Sequence[Arm], path: Path) -> None:
    """Draw the test metric over rounds: one panel per task, one line per arm (mean of seeds)."""
    tasks = arms[0].tasks
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.6 * len(tasks), 3.2), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for arm in arms:
            curves = [dict(arm.curve(seed, task.name)) for seed in range(len(arm.runs))]
            rounds = sorted(set().union(*curves))
            values = [[curve[r] for curve in curves if r in curve] for r in rounds]
            (line,) = axis.plot(rounds, [mean(v) for v in values], label=arm.name)
            low, high = [min(v) for v in values], [max(v) for v in values]
            axis.fill_between(rounds, low, high, color=line.get_color(), alpha=0.15)
        axis.set(title=task.name, xlabel="round", ylabel=task.metric_fn.name)
        axis.set_ylim(bottom=max(-1, axis.get_ylim()[0]))
    axes[0][0].legend(fontsize="small")
    _save(figure, path)


def conflict(arms: Sequence[Arm], path: Path) -> None:
    """Draw the share of pairs of clients whose updates conflict, over rounds."""
    figure, axis = plt.subplots(figsize=(5, 3.2))
    for arm in arms:
        shares = arm.conflicts()
        if shares:
            axis.plot(*zip(*shares, strict=True), label=arm.name)
    axis.set(xlabel="round", ylabel="conflicting pairs of clients", ylim=(0, 1))
    axis.legend(fontsize="small")
    _save(figure, path)


def task_cosines(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the cosines between the tasks' mean updates in the last round that has them."""
    found = [r for r in records if (r["diagnostics"] or {}).get("tasks", {}).get("ids")]
    if not found:
        return
    tasks = found[-1]["diagnostics"]["tasks"]
    cosine = [[float("nan") if v is None else v for v in row] for row in tasks["cosine"]]
    figure, axis = plt.subplots(figsize=(4, 3.5))
    image = axis.imshow(cosine, vmin=-1, vmax=1, cmap="RdBu")
    axis.set_xticks(range(len(cosine)), tasks["ids"], rotation=45, ha="right")
    axis.set_yticks(range(len(cosine)), tasks["ids"])
    axis.set_title(f"cosine of task updates, round {found[-1]['round']}", fontsize="small")
    figure.colorbar(image)
    _save(figure, path)


def objective(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the joint objective and each task's local loss over rounds."""
    figure, axis = plt.subplots(figsize=(5, 3.2))
    rounds = [r["round"] for r in records]
    values = [float("nan") if r["objective"] is None else r["objective"] for r in records]
    axis.plot(rounds, values, "k", label="objective")
    for task in records[-1]["loss"]:
        axis.plot(rounds, [r["loss"].get(task, float("nan")) for r in records], label=task)
    axis.set(xlabel="round", ylabel="training loss", yscale="log")
    axis.legend(fontsize="small")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
