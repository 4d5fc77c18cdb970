"""``fedjoint list``."""

from __future__ import annotations

from typing import Annotated

import typer

from fedjoint.cli.catalogue import catalogue
from fedjoint.cli.common import console
from fedjoint.errors import choose

_GROUPS = {"strategies": "strategy", "methods": "local method", "scenarios": "scenario"}


def list_command(
    what: Annotated[str, typer.Argument(help="strategies, methods or scenarios.")] = "",
) -> None:
    """List strategies, local methods and scenarios: what each does, its paper, what it omits."""
    if what and what not in _GROUPS:
        raise choose("list", what, _GROUPS)
    for group in [what] if what else list(_GROUPS):
        if not what:
            _say(f"{group}\n")
        for entry in catalogue(group):
            part = " (in part)" if entry.omits else ""
            _say(f"{', '.join(entry.names)}{part}: {entry.summary}")
            if entry.paper:
                _say(f"    {entry.paper}")
            if entry.omits:
                _say(f"    left out: {entry.omits}")
        _say("")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
