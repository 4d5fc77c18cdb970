"""What the commands share: scenarios by name or file, flags, and the progress of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedjoint.config import Config, check, load, override
from fedjoint.errors import UserError, choose
from fedjoint.loading import find, registered

console = Console()

Scenario = Annotated[str, typer.Argument(help="A registered scenario, or a TOML file.")]
Settings = Annotated[
    list[str], typer.Option("--set", help="Override a setting, such as rounds=10.")
]


def scenario_config(scenario: str, settings: list[str], **flags: Any) -> Config:
    """Return the configuration of a scenario, with flags and ``--set`` applied, in this order.

    Args:
        scenario: a registered name, ``module:function`` or a TOML file.
        settings: ``key.path=value`` texts.
        flags: ``table__key=value``; None is left out.

    Raises:
        UserError: there is no such scenario, or a setting is wrong.
    """
    tree: Mapping[str, Any]
    if scenario.endswith(".toml") or Path(scenario).is_file():
        tree = load(scenario)
    elif ":" in scenario or scenario in registered("scenarios"):
        tree = find("scenarios", scenario)()
    else:
        error = choose("scenario", scenario, registered("scenarios"))
        raise UserError(f"{error}; or give a TOML file")
    tree = override(tree, [])
    for flag, value in flags.items():
        if value is not None:
            *tables, key = flag.split("__")
            node: Any = tree
            for table in tables:
                node = node.setdefault(table, {})
            node[key] = value
    return check(override(tree, settings), scenario)


class Live:
    """A progress bar of rounds with the objective and the metrics of the newest.

    Args:
        rounds: how many there are.
        label: what runs.
    """

    def __init__(self, rounds: int, label: str):
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
            console=console,
        )
        self.bar = self.progress.add_task(label, total=rounds, news="starting")

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        """Show the record of a round."""
        self.progress.update(self.bar, completed=record["round"], news=news(record))
        for failure in record["clients"]["failed"]:
            who = f"node {failure['node']}"
            if failure["client"] is not None:
                who = f"client {failure['client']} ({who})"
            self.progress.console.print(f"round {record['round']}: {who}: {failure['reason']}")
        if record["kept"]:
            text = f"round {record['round']}: the previous backbone is kept: {record['kept']}"
            self.progress.console.print(text)
        if record["fallback"] and record["round"] == 1:
            self.progress.console.print(f"clients train one by one: {record['fallback']}")


def news(record: dict[str, Any]) -> str:
    """Return a round in a few words."""
    objective = record["objective"]
    words = [] if objective is None else [f"objective {objective:.3f}"]
    test = (record["evaluation"] or {}).get("test", {})
    words += [f"{task} {value:.3f}" for task, value in test.items() if value is not None]
    return "  ".join(words)
