"""``fedjoint config``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic_core import PydanticUndefined

from fedjoint.cli.common import say
from fedjoint.config.schema import Config
from fedjoint.config.section import Section
from fedjoint.errors import choose
from fedjoint.options import allowed_words


def config_command(
    key: Annotated[
        str, typer.Argument(help="A table or a key, such as data or local.epochs; default: all.")
    ] = "",
) -> None:
    """Show the settings of a run: every key with type, default and meaning."""
    keys = list(describe_keys(Config))
    chosen = [entry for entry in keys if not key or f"{entry[0]}.".startswith(f"{key}.")]
    if not chosen:
        raise choose("setting", key, [entry[0] for entry in keys])
    for name, allowed, default, meaning in chosen:
        say(f"{name} ({allowed}; default {default})")
        say(f"    {meaning}")


def describe_keys(section: type[Section], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Return key, type, default and meaning of every setting of a table and the tables in it."""
    entries = []
    for name, field in section.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            entries += describe_keys(kind, f"{prefix}{name}.")
            continue
        allowed = allowed_words(Annotated[(kind, *field.metadata)] if field.metadata else kind)
        default = "none" if field.default in (None, PydanticUndefined) else repr(field.default)
        entries.append((prefix + name, allowed, default, field.description or ""))
    return entries
