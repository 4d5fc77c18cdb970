"""Settings from TOML, flags or Python -> one checked configuration."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fedjoint._util.reading import read_regular
from fedjoint.config.schema import Config
from fedjoint.config.section import Plugin
from fedjoint.errors import UserError

_TOML = 1 << 24  # bytes of a configuration
_DEEPEST = 50  # tables and lists within one another


def check(values: Mapping[str, Any], source: str = "config") -> Config:
    """Validate a tree of settings.

    Raises:
        UserError: a key is unknown or a value is wrong; the line names the key, what is allowed
            and, for a misspelt key, the nearest one.
    """
    _refuse_deep(values, source)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error)}") from None


def load(path: str | Path) -> dict[str, Any]:
    """Read a TOML configuration file into a tree for :func:`check`."""
    path = Path(path)
    try:
        values = tomllib.loads(read_regular(path, _TOML).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a scenario name or a TOML file") from None
    except (ValueError, RecursionError) as error:  # of TOML, of its text, of a giant number
        raise UserError(f"{path}: not valid TOML: {error}") from None
    _refuse_deep(values, str(path))
    return values


def _refuse_deep(values: Mapping[str, Any], source: str) -> None:
    """Refuse what functions that call themselves for each inner table cannot read."""
    level: list[Any] = [values]
    for _ in range(_DEEPEST):
        tables = [each.values() if isinstance(each, Mapping) else each for each in level]
        level = [i for table in tables for i in table if isinstance(i, Mapping | list | tuple)]
        if not level:
            return
    raise UserError(f"{source}: more than {_DEEPEST} tables within one another; write fewer")


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return ``values`` with ``key.path=value`` settings applied (values in TOML, or bare text).

    What a setting is the alternative of gives way: ``local.steps`` takes the place of epochs, and
    another plug-in comes without the options of the one before.

    Raises:
        UserError: a setting is malformed.
    """
    tree = _copy(values)
    given = [(setting, *_parse(setting)) for setting in settings]
    for _, keys, value in given:
        _make_way(tree, keys, value)
    for setting, keys, value in given:
        put(tree, keys, value, f"--set {setting}")
    return tree


def _parse(setting: str) -> tuple[list[str], Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {setting}: write it as key.path=value")
    value: Any = text
    if "\n" in setting:
        raise UserError(f"--set {setting}: write it in one line")
    with suppress(ValueError, RecursionError):
        value = tomllib.loads(f"value = {text}")["value"]
    return key.strip().split("."), value


#: key of the table local -> the key beside it that gives way
_ALTERNATIVES = {"steps": "epochs", "epochs": "steps"}


def _make_way(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Drop from ``tree`` what cannot stand beside ``value`` at ``keys``."""
    *tables, last = keys
    for table in tables:
        inner = tree.get(table)
        if not isinstance(inner, dict):
            return
        tree = inner
    if tables == ["local"] and last in _ALTERNATIVES:
        tree.pop(_ALTERNATIVES[last], None)
    if tables == ["local"] and last == "method" and tree.get("method") != value:
        tree.pop("options", None)
    if last == "name" and "options" in tree and tree.get("name") != value:
        tree.pop("options")


def put(tree: dict[str, Any], keys: Sequence[str], value: Any, source: str) -> None:
    """Set the value at ``keys`` of nested tables, which are made where they lack.

    Args:
        tree: is changed in place.
        keys: the tables' names from the outermost, then the value's.
        value: the value.
        source: where it comes from, for errors.

    Raises:
        UserError: one of the tables is none.
    """
    *tables, last = keys
    for table, inner in zip(tables, keys[1:], strict=True):
        if isinstance(tree.get(table), str) and inner in Plugin.model_fields:
            tree[table] = {"name": tree[table]}  # a name alone is short for that
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise UserError(f"{source}: {table} = {tree!r}: write it as a table")
    tree[last] = value


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _rank(detail: Any) -> int:
    """Return how little an error says of a value: of several, the one of the least counts."""
    if detail["type"] == "extra_forbidden":  # more than that the right key is missing
        return 0
    # Of a value that may be a word or a list, a list is measured by what a list may hold.
    return 2 if detail["type"] == "literal_error" and isinstance(detail["input"], list) else 1


def _is_type(part: object) -> bool:
    """Whether part of a place is a type: pydantic names those that a value may be of, too."""
    return isinstance(part, str) and (part in ("str", "float") or part.endswith("]"))


def _explain(error: ValidationError) -> str:
    details = error.errors()
    first = min(details, key=_rank)
    place = [str(part) for part in first["loc"] if not _is_type(part)]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        allowed = _fields(place[:-1])
        near = difflib.get_close_matches(place[-1], allowed, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key {key!r}: allowed here are {', '.join(sorted(allowed))}{hint}"
    given = "" if isinstance(first.get("input"), Mapping) else f" (given: {first.get('input')!r})"
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "literal_error":
        allowed = [
            part.strip(" '") for part in first["ctx"]["expected"].replace(" or ", ",").split(",")
        ]
        near = difflib.get_close_matches(str(first["input"]), allowed, n=1, cutoff=0.5)
        text = f"allowed are {', '.join(allowed)}" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
        if any(each["type"] == "list_type" for each in details):
            text += ", or a list"
    text = re.sub(r"a valid dictionary( or instance of \w+)?", "a table", text)
    return f"{key}: {text}{given}" if key else text


def _fields(place: list[str]) -> list[str]:
    model: Any = Config
    for part in place:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation
        else:  # a list or a table of them
            model = get_args(model)[-1]
    return list(model.model_fields)
