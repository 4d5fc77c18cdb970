"""The ``fedjoint`` program."""

from __future__ import annotations

import logging
import signal
import sys

import typer
from rich.console import Console

from fedjoint.commands.compare import bench_command, compare_command, plot_command
from fedjoint.commands.deploy import (
    client_command,
    deploy_command,
    keys_command,
    server_command,
    status_command,
)
from fedjoint.commands.export import export_command, predict_command
from fedjoint.commands.list import list_command
from fedjoint.commands.simulate import resume_command, simulate_command
from fedjoint.errors import UserError

app = typer.Typer(
    help="Train many models jointly without moving data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("simulate")(simulate_command)
app.command("resume")(resume_command)
app.command("compare")(compare_command)
app.command("bench-strategies")(bench_command)
app.command("plot")(plot_command)
app.command("list")(list_command)
app.command("keys")(keys_command)
app.command("server")(server_command)
app.command("client")(client_command)
app.command("deploy")(deploy_command)
app.command("status")(status_command)
app.command("export")(export_command)
app.command("predict")(predict_command)


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
