"""``fedjoint list``."""

from __future__ import annotations

from typing import Annotated

import typer

from fedjoint.cli.catalogue import catalogue
from fedjoint.cli.common import say
from fedjoint.errors import choose
from fedjoint.registry import KINDS


def list_command(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS) + "; default: all.")] = "",
) -> None:
    """List plug-ins: what each does, its paper, and what it leaves out of that."""
    if kind and kind not in KINDS:
        raise choose("kind of plug-in", kind, KINDS)
    for each in [kind] if kind else KINDS:
        if not kind:
            say(f"{each}\n")
        _list(each)
        say("")


def _list(kind: str) -> None:
    entries = catalogue(kind)
    for entry in entries:
        part = " (in part)" if entry.omits else ""
        say(f"{', '.join(entry.names)}{part}: {entry.summary}")
        if entry.paper:
            say(f"    {entry.paper}")
        if entry.omits:
            say(f"    left out: {entry.omits}")
    if not entries:
        say(f"none is built in: name yours as file.py:Name in {KINDS[kind].setting}")
