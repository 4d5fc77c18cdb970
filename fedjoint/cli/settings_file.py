"""``--config FILE``: the options of a command from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedjoint.config.load import load
from fedjoint.errors import UserError, choose


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Make a file's values the defaults of the options: what is on the command line wins.

    Raises:
        UserError: it is no TOML, or a key is no option.
    """
    if path is None:
        return None
    flags = {
        param.opts[0].removeprefix("--"): param.name or ""
        for param in context.command.params
        if param.opts[0].startswith("--") and param.opts[0] != "--config"
    }
    values: dict[str, Any] = {}
    for key, value in load(path).items():
        if key not in flags:
            raise choose(f"key of {path}", key, flags)
        if isinstance(value, dict):
            raise UserError(f"{path}: {key} is a table; give a value, as for --{key}")
        listed = isinstance(value, list)
        values[flags[key]] = ",".join(map(str, value)) if listed else value
    context.default_map = values
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="TOML file with any of these options.", callback=_read, is_eager=True
    ),
]
