"""Strategies with their options on one line: ``fedavg,pcgrad[level=task],krum[malicious=2]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedjoint.config.load import override
from fedjoint.config.schema import Config
from fedjoint.errors import UserError


def split_entries(text: str) -> list[str]:
    """Return the entries of a comma-separated list; commas within brackets are part of one.

    Raises:
        UserError: a bracket or a quotation mark is left open, or there is no entry.
    """
    entries = _split(text, ",")
    if not entries:
        raise UserError("no strategy is named; give some, such as fedavg,pcgrad[level=task]")
    return entries


def entry_configs(config: Config, entries: Sequence[str]) -> dict[str, Config]:
    """Return each entry's configuration: ``config`` with the strategy that it names.

    An entry is ``name`` or ``name[option=value;option=value]``, a value TOML or bare text, such
    as ``krum[malicious=2]`` or ``my_file.py:MyMerge[kind=fast;weights=[1, 2]]``. Entries of
    ``config``'s own strategy start from ``strategy.options``.

    Raises:
        UserError: an entry is malformed or given twice, or ``strategy.options`` belong to none.
    """
    own, given = config.strategy.name, config.strategy.options
    found: dict[str, Config] = {}
    names = set()
    for entry in entries:
        name, options = _read(entry)
        if entry in found:
            raise UserError(f"strategy {entry} is given twice; leave one out")
        names.add(name)
        if name == own:
            options = {**given, **options}
        strategy = config.strategy.model_copy(update={"name": name, "options": options})
        found[entry] = config.model_copy(update={"strategy": strategy})
    if given and own not in names:
        raise UserError(
            f"strategy.options {given} belong to {own}, which is not among the strategies; "
            "write options into an entry, as in pcgrad[level=task]"
        )
    return found


def _read(entry: str) -> tuple[str, dict[str, Any]]:
    name, bracket, rest = entry.partition("[")
    if not name.strip() or (bracket and not rest.endswith("]")):
        raise _malformed(entry)
    options: dict[str, Any] = {}
    for part in _split(rest[:-1], ";"):
        option, equals, _ = part.partition("=")
        if not option.strip() or not equals:
            raise _malformed(entry)
        if option.strip() in options:
            raise UserError(f"strategy {entry}: {option.strip()} is given twice")
        options |= override({}, [part])
    return name.strip(), options


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside of brackets and quotation marks; drop what is empty."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[{") - (char in "]}")
        if char == separator and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    if depth or quote:
        raise _malformed(text)
    return [part.strip() for part in parts if part.strip()]


def _malformed(text: str) -> UserError:
    return UserError(f"strategies {text}: write name or name[option=value;option=value]")
