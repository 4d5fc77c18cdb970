"""Runs on the terminal; imported once a command knows what to run, as PyTorch is."""

from __future__ import annotations

import time
from pathlib import Path

from fedjoint.cli.common import console, say
from fedjoint.cli.live import Live
from fedjoint.config.schema import Config
from fedjoint.experiments.report import show_run, show_what_inline_takes
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import resume, simulate


def begin(config: Config) -> None:
    """Run a scenario, and show what came of it."""
    began = time.perf_counter()
    with Live(config.rounds, label(config)) as live:
        result = simulate(config, callbacks=[live])
    took = time.perf_counter() - began
    show_run(result, console)
    show_what_inline_takes(result, took, console)


def go_on(run: Path, rounds: int | None) -> None:
    """Continue a run, to ``rounds`` in all where that is given, and show what came of it."""
    opened = RunDir.open(run)
    if opened.status == "done" and rounds is None:
        say(f"{run}: the run is done; nothing is left to do (--set rounds=N gives more)")
        show_run(resume(run), console)
        return
    config = opened.config()
    with Live(rounds or config.rounds, label(config)) as live:
        result = resume(run, rounds=rounds, callbacks=[live])
    show_run(result, console)


def label(config: Config) -> str:
    """Return what a run is, in two words, or three where its local method is chosen, too."""
    names = [name for name in (config.strategy.name, config.local.method) if name]
    return f"{config.name} ({', '.join(Path(name).name for name in names)})"
