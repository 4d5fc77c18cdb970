"""Objects named by the user: a registered name, ``package.module:name`` or ``file.py:name``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fedjoint.errors import UserError, choose

_ONE = {"strategies": "strategy", "methods": "local method", "scenarios": "scenario"}

_files: list[ModuleType] = []


def load_object(reference: str) -> Any:
    """Import ``package.module:name`` or ``path/to/file.py:name``.

    Raises:
        UserError: there is no such module, file or name, or importing it fails.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not name:
        raise UserError(f"{reference!r}: write it as package.module:name or file.py:name")
    try:
        module = _file(place) if place.endswith(".py") else importlib.import_module(place)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{reference!r}: cannot import {place}: {error}") from error
    if not hasattr(module, name):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise choose(f"name in {place}", name, known)
    return getattr(module, name)


def anchored(reference: str) -> str:
    """Return ``file.py:name`` with the whole path, for use from any folder; others as they are."""
    place, _, name = reference.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(".py") else reference


def _file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise UserError(f"{place}: no such file")
    # One module per file and process.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        _files.append(module)
    return sys.modules[name]


def from_files() -> list[ModuleType]:
    """Return the modules read from files, which other processes cannot import by name."""
    return list(_files)


def registered(group: str) -> list[str]:
    """Return the names registered in the entry point group ``fedjoint.<group>``."""
    return sorted({point.name for point in entry_points(group=f"fedjoint.{group}")})


def find(group: str, name: str) -> Any:
    """Return the object behind a registered name of ``group``, or behind a reference.

    Raises:
        UserError: there is none; the line lists the registered names and the nearest.
    """
    if ":" in name:
        return load_object(name)
    for point in entry_points(group=f"fedjoint.{group}", name=name):
        try:
            return point.load()
        except Exception as error:
            raise UserError(f"{_ONE[group]} {name!r} ({point.value}): {error}") from error
    raise choose(_ONE[group], name, registered(group))


def construct(what: str, make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Call ``make(**options)`` once the options fit its signature.

    Raises:
        UserError: an option is unknown or missing, or ``make`` refuses its value.
    """
    signature = inspect.signature(make)
    takes = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    for option in options:
        if option not in takes:
            raise choose(f"option of {what}", option, takes or ["none"])
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UserError(f"{what}: {error}") from None
    try:
        return make(**options)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
