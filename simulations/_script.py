"""Scenarios as scripts: ``python -m simulations.digits --rounds 5 --set strategy.name=fedavg``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import fedjoint

if TYPE_CHECKING:
    from fedjoint.config.schema import Config


@contextmanager
def script(scenario: Mapping[str, Any]) -> Iterator[Config]:
    """Yield the scenario as the command line changes it; end with one line on a user's mistake."""
    try:
        yield _from_arguments(scenario)
    except fedjoint.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def progress(record: fedjoint.RoundRecord) -> None:
    """Print a round as it ends."""
    from fedjoint.cli.live import news

    print(f"round {record.round}: {news(record)}", flush=True)


def show(result: fedjoint.RunResult) -> None:
    """Print the metrics of a run, and draw it into its folder."""
    from rich.console import Console

    from fedjoint.experiments import plots
    from fedjoint.experiments.report import show_run

    show_run(result, Console())
    if why := plots.of_run(result.records, result.path):
        print(why)
    print(f"plots: {result.path}/*.png")


def _from_arguments(scenario: Mapping[str, Any]) -> Config:
    from fedjoint.config.scenario import changed

    name = scenario["name"]
    parser = argparse.ArgumentParser(
        prog=f"python -m simulations.{name}", description=f"Train the scenario {name}."
    )
    parser.add_argument("--rounds", type=int, help="how many")
    parser.add_argument("--engine", help="ray, inline or flower")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, such as strategy.name=fedavg; repeatable",
    )
    given = parser.parse_args()
    return changed(scenario, given.set, name, rounds=given.rounds, engine__name=given.engine)
