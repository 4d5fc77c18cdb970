"""What the commands share: options, and lines on the terminal."""

from __future__ import annotations

import math
from typing import Annotated

import typer
from rich.console import Console

from fedjoint.errors import UserError

_MOST = 2**40  # of the ids that a message may hold

console = Console()

Scenario = Annotated[str, typer.Argument(help="A registered scenario, or a TOML file.")]
Settings = Annotated[
    list[str], typer.Option("--set", help="Override a setting, such as rounds=10.")
]


def parts(text: str) -> list[str]:
    """Return the parts of a comma-separated option."""
    return [part.strip() for part in text.split(",") if part.strip()]


def client_ids(text: str) -> list[int]:
    """Return the ids of the option ``--clients``.

    Raises:
        UserError: one is no whole number.
    """
    try:
        return [int(part) for part in parts(text)]
    except ValueError:
        raise UserError(f"--clients {text}: write ids, as in 0,1,2") from None


def own_ids(text: str) -> list[int]:
    """Return the ids of the option ``--clients`` where a node has to have some.

    Raises:
        UserError: there is none, or one is wrong.
    """
    ids = client_ids(text)
    if not ids or len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) > _MOST:
        raise UserError(f"--clients: give different ids from 0 to {_MOST}, comma-separated")
    return ids


def finite(option: str, value: float) -> float:
    """Return the value of an option that is a number.

    Raises:
        UserError: it is none, or has no end.
    """
    if not math.isfinite(value):
        raise UserError(f"{option} {value}: give a number")
    return value


def number(value: float | None) -> str:
    """Return a number for a table; nothing where it is not known."""
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def say(text: str) -> None:
    """Show a line as it is."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)
