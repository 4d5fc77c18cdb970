"""``fedjoint show``."""

from __future__ import annotations

from typing import Annotated

import typer

from fedjoint.cli.catalogue import Entry, catalogue, describe
from fedjoint.cli.common import say
from fedjoint.errors import UserError, choose
from fedjoint.registry import KINDS, find, registered


def show_command(
    name: Annotated[
        str,
        typer.Argument(help="A name, or KIND/NAME, such as strategies/my_file.py:Class."),
    ],
) -> None:
    """Show a plug-in: its options with types and defaults, its paper, what it leaves out."""
    for kind, entry in entries_of(name):
        _show(kind, entry)
        say("")


def entries_of(name: str) -> list[tuple[str, Entry]]:
    """Return kind and entry of everything with this name.

    Args:
        name: of a plug-in, or ``KIND/NAME``.

    Raises:
        UserError: there is none.
    """
    kind, slash, rest = name.partition("/")
    if slash and kind in KINDS:
        return [(kind, _entry(kind, rest))]
    if ":" in name:
        raise UserError(f"{name}: say which kind it is, as in strategies/{name}")
    kinds = [kind for kind in KINDS if name in registered(kind)]
    if not kinds:
        raise choose("name", name, {known for kind in KINDS for known in registered(kind)})
    return [(kind, _entry(kind, name)) for kind in kinds]


def _entry(kind: str, name: str) -> Entry:
    thing = find(kind, name)
    known = (entry for entry in catalogue(kind) if name in entry.names)
    return next(known, None) or describe(kind, (name,), thing)


def _show(kind: str, entry: Entry) -> None:
    name, *others = entry.names
    say(f"{name}: {KINDS[kind].one}" + (f", also {', '.join(others)}" if others else ""))
    say(f"    {entry.summary}")
    if entry.paper:
        say(f"    paper: {entry.paper}")
    if entry.omits:
        say(f"    left out: {entry.omits}")
    say(f"    named in: {KINDS[kind].setting}")
    if not entry.options:
        say("    options: none")
    for option, meaning in entry.options:
        default = "to be given" if option.required else f"default {option.default!r}"
        say(f"    option {option.name}: {option.allowed}; {default}")
        if meaning:
            say(f"        {meaning}")
