"""Clients per second against clients, both on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a panel per workload, a line per contestant: solid on one thread, dashed on several."""
    names = list(dict.fromkeys(row["workload"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.6), squeeze=False)
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    for axis, name in zip(axes[0], names, strict=True):
        lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
        for row in rows:
            if row["workload"] == name and not math.isnan(row["clients per second"]):
                point = row["clients"], row["clients per second"]
                lines.setdefault((row["contestant"], row["threads"]), []).append(point)
        for (contestant, threads), points in lines.items():
            axis.plot(
                *zip(*sorted(points), strict=True),
                marker="o",
                color=f"C{contestants.index(contestant)}",
                linestyle="-" if threads == 1 else "--",
                label=f"{contestant}, {threads} thread{'s' * (threads > 1)}",
            )
        axis.set(title=name, xlabel="clients", ylabel="clients per second")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
