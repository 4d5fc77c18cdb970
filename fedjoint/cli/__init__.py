"""The ``fedjoint`` program."""

from __future__ import annotations

import io
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import typer
from click.exceptions import NoArgsIsHelpError
from rich.console import Console
from typer.core import TyperGroup

from fedjoint._util.interrupt import came, exit_status, raise_at_sigterm, raise_from_now_on
from fedjoint.errors import UserError, one_line, said

#: name -> where its function is, and what it does, as the function's docstring begins
COMMANDS = {
    "simulate": (
        "simulate:simulate_command",
        "Train jointly, and leave metrics, checkpoints and the backbone in a run directory.",
    ),
    "resume": (
        "simulate:resume_command",
        "Continue a run from its newest checkpoint, or a run that is done with more rounds.",
    ),
    "compare": (
        "compare:compare_command",
        "Compare training alone, per task, jointly, and in one place.",
    ),
    "affinity": (
        "affinity:affinity_command",
        "Tell which tasks help which: train jointly without each, and compare the updates.",
    ),
    "suite": (
        "suite:suite_command",
        "Run a suite of comparisons, in parallel; an interrupted one goes on where it stopped.",
    ),
    "bench-strategies": (
        "compare:bench_command",
        "Rank strategies on the same data, against training alone and per task.",
    ),
    "transfer": (
        "transfer:transfer_command",
        "Measure what a run's backbone is worth to a new task or to new clients.",
    ),
    "list": (
        "list:list_command",
        "List plug-ins: what each does, its paper, and what it leaves out of that.",
    ),
    "show": (
        "show:show_command",
        "Show a plug-in: its options with types and defaults, its paper, what it leaves out.",
    ),
    "config": (
        "config:config_command",
        "Show the settings of a run: every key with type, default and meaning.",
    ),
    "new": (
        "new:new_command",
        "Write a minimal strategy, method, source or scenario, and its test, to start from.",
    ),
    "doctor": (
        "doctor:doctor_command",
        "Check this machine (versions, Ray, GPUs, ports, disk, data), and say what cures it.",
    ),
    "plot": ("compare:plot_command", "Draw a run: objective, metrics, conflict."),
    "keys": ("machines:keys_command", "Make the keys of a deployment, or of more nodes."),
    "server": (
        "machines:server_command",
        "Run the server: Flower's SuperLink, which knows the nodes of --keys.",
    ),
    "client": (
        "machines:client_command",
        "Run a node, with its clients' data.",
    ),
    "deploy": (
        "deploy:deploy_command",
        "Start a run on the nodes of a server on this machine, and follow it.",
    ),
    "status": (
        "status:status_command",
        "Show how a run is doing: rounds, metrics, nodes, clients.",
    ),
    "stop": (
        "status:stop_command",
        "Stop a run on a server, in order: its newest round is the last, and a resume goes on.",
    ),
    "nodes": ("nodes:nodes_command", "List the nodes that a server on this machine knows."),
    "register": (
        "nodes:register_command",
        "Have a server on this machine take the keys in a folder now.",
    ),
    "revoke": (
        "nodes:revoke_command",
        "Shut a node out, for good: its key is never taken again, and is removed from the folder.",
    ),
    "prune": (
        "prune:prune_command",
        "List, or delete, the heads and other private state of runs that ended long ago.",
    ),
    "export": (
        "export:export_command",
        "Write one model, backbone and head, that works without the run.",
    ),
    "predict": (
        "export:predict_command",
        "Predict a row per input: class and probability, labels and probabilities, or values.",
    ),
}


class Program(TyperGroup):
    """Imports a command when it is run: servers, nodes and ``--help`` start without PyTorch."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.commands = {
            name: click.Command(name, help=text) for name, (_, text) in COMMANDS.items()
        }

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is to be run."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = load_command(name)
        raise_from_now_on()
        return name, command, rest


def load_command(name: str) -> click.Command:
    """Import a command by its name."""
    module, _, function = COMMANDS[name][0].partition(":")
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
    """Run the program; whatever happens is one line.

    Exit status 2: a user's mistake, or what the machine refuses; 1: a fault of ours, or of a
    plug-in; 130 and 143: an interrupt, and SIGTERM. With ``FEDJOINT_TRACEBACK`` set, a fault shows
    where it happened.
    """
    raise_at_sigterm()  # what the run started is stopped, and the run marked as that
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("fedjoint.data").setLevel(logging.INFO)  # one line of what was read
    if not os.environ.get("COLUMNS", "1").strip("0"):
        del os.environ["COLUMNS"]  # as some shells have it where there is no terminal
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know ASCII alone
    try:
        _check_place()
        # As it stands, it would show what is wrong in a box, character by character.
        sys.exit(app(prog_name="fedjoint", standalone_mode=False) or 0)
    except NoArgsIsHelpError:  # shows the help as it is made
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as error:  # Typer makes the one of the other
        sys.exit(error.code if isinstance(error, SystemExit) and not came() else exit_status())
    except Exception as error:
        if came():
            sys.exit(exit_status())
        if not isinstance(error, UserError) and os.environ.get("FEDJOINT_TRACEBACK"):
            raise
        text, code = _line(error)
        Console(stderr=True, soft_wrap=True).print(f"error: {text}", style="red", markup=False)
        sys.exit(code)


def _check_place() -> None:
    """Refuse to begin in a folder that is gone, where PyTorch cannot be loaded.

    Raises:
        UserError: it is.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(f"the folder you are in: {error.strerror}; go to another") from None


def _line(error: Exception) -> tuple[str, int]:
    """Return what is said of an error, and the exit status."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "fedjoint"
        return one_line(f"{error.format_message().rstrip('.')}; see {command} --help"), 2
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"{error.filename or 'the machine'}: {error.strerror}"), 2
    if isinstance(error, MemoryError):
        return one_line(f"memory ran out ({error}); ask for fewer clients, or a smaller model"), 2
    why = f"unforeseen: {said(error)} (FEDJOINT_TRACEBACK=1 shows where)"
    return one_line(why), 1
