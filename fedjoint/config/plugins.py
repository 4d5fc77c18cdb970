"""The plug-ins that a configuration names, wherever they stand in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedjoint.config.section import Plugin, Section


def plugins(part: Any, setting: str = "") -> Iterator[tuple[str, Plugin]]:
    """Yield every plug-in of part of a configuration, after the setting that names it.

    Args:
        part: a table, or what one holds.
        setting: where that is; empty: the whole configuration.
    """
    if isinstance(part, Plugin):
        yield setting, part
    if isinstance(part, list):
        for each in part:
            yield from plugins(each, setting)
    fields = dict(part) if isinstance(part, Section | Mapping) else {}
    for name, value in fields.items():
        yield from plugins(value, f"{setting}.{name}" if setting else str(name))
