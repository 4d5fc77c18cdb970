"""The ``fedjoint`` program."""

from __future__ import annotations

import logging
import signal
import sys
from importlib import import_module
from typing import Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from fedjoint.errors import UserError

_COMMANDS = {
    "simulate": "simulate:simulate_command",
    "resume": "simulate:resume_command",
    "compare": "compare:compare_command",
    "bench-strategies": "compare:bench_command",
    "plot": "compare:plot_command",
    "keys": "machines:keys_command",
    "server": "machines:server_command",
    "client": "machines:client_command",
    "deploy": "deploy:deploy_command",
    "status": "deploy:status_command",
    "export": "export:export_command",
    "predict": "export:predict_command",
}


class Program(TyperGroup):
    """Imports a command when it is asked for: servers and nodes start without PyTorch."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.commands = {name: click.Command(name) for name in _COMMANDS}  # names alone

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command by its name; None where there is none."""
        if name not in _COMMANDS:
            return None
        module, _, function = _COMMANDS[name].partition(":")
        alone = typer.Typer(add_completion=False)
        alone.command(name)(getattr(import_module(f"fedjoint.cli.{module}"), function))
        return typer.main.get_command(alone)


app = typer.Typer(
    cls=Program, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)


@app.callback()
def program() -> None:
    """Train many models jointly without moving data."""


def main() -> None:
    """Run the program; a user's mistake is one line and exit status 2."""
    # As an interrupt: what the run started is stopped, and the run marked as failed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
