"""Names -> objects, for every kind of plug-in.

A name is looked up in three places, whatever it names:

- ``module:Name`` or ``file.py:Name`` is what it says;
- a built-in is a file of its name in its kind's package (``strategies/pcgrad.py``) which holds an
  object of that name (``PCGrad``; case and underscores make no difference);
- everything else is an entry point of the group ``fedjoint.<kind>``, by which an installed package
  adds names.

Built-ins are listed by their files: a new one needs no entry elsewhere, and nothing is imported
before it is used.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import EntryPoints, entry_points
from inspect import ismodule
from pathlib import Path
from types import ModuleType
from typing import Any

from fedjoint._util.interrupt import held
from fedjoint.errors import ANYTHING, UserError, choose, said


@dataclass(frozen=True)
class Kind:
    """One kind of plug-in.

    Attributes:
        one: what to call one of them.
        setting: where the configuration names it.
        package: the package of the built-ins; empty where there are none.
        member: the name of the object in a built-in's file; empty: the file's own.
        besides: files of the package that are no built-ins. Neither are packages, nor files whose
            names begin with an underscore.
        given: how many arguments a plug-in takes before its options.
    """

    one: str
    setting: str
    package: str = ""
    member: str = ""
    besides: Collection[str] = ()
    given: int = 0


#: kind, as in ``fedjoint list`` and in the names of entry point groups -> what it is
KINDS = {
    "strategies": Kind("strategy", "strategy", "fedjoint.strategies"),
    "methods": Kind("local method", "local.method", "fedjoint.clients", besides=("app",)),
    "scenarios": Kind("scenario", "fedjoint simulate", "fedjoint.simulations", member="config"),
    "suites": Kind("suite", "fedjoint suite", "fedjoint.simulations.suites", member="suite"),
    "sources": Kind("data source", "data.source", "fedjoint.data.sources"),
    "backbones": Kind("backbone", "model.backbone", "fedjoint.model.backbones", given=1),
    "losses": Kind("loss", "losses", "fedjoint.model.losses"),
    "metrics": Kind("metric", "metrics", "fedjoint.model.metrics"),
    "balances": Kind("balance", "balance", "fedjoint.training.balances", given=1),
    "augmentations": Kind("augmentation", "local.augment", "fedjoint.training.augmentations"),
    "compressions": Kind("compression", "strategy.compression", "fedjoint.protocol.compressions"),
    "engines": Kind(
        "engine",
        "engine",
        "fedjoint.engines",
        besides=("base", "combining", "local", "processes"),
        given=1,
    ),
    "callbacks": Kind("callback", "callbacks"),
}

_files: list[ModuleType] = []


def registered(kind: str) -> list[str]:
    """Return the names of the built-ins and the entry points of a kind, sorted."""
    return sorted({*_builtins(kind), *(point.name for point in _points(kind))})


def find(kind: str, name: str) -> Any:
    """Return the object behind a name of ``kind``; a built-in goes before an entry point.

    Raises:
        UserError: there is none; the line lists the registered names and the nearest.
    """
    if ":" in name:
        return load_object(name)
    place = f"{KINDS[kind].package}.{name}"
    if (_may_be_builtin(kind, name) and place in sys.modules) or name in _builtins(kind):
        return _builtin(kind, name)
    for point in _points(kind).select(name=name):
        try:
            return point.load()
        except ANYTHING as error:  # whatever another package raises
            raise UserError(f"{KINDS[kind].one} {name!r} ({point.value}): {said(error)}") from error
    raise choose(KINDS[kind].one, name, registered(kind))


def load_object(reference: str) -> Any:
    """Import ``package.module:name`` or ``path/to/file.py:name``.

    Raises:
        UserError: there is no such module, file or name, or importing it fails.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise UserError(f"{reference!r}: write it as package.module:name or file.py:name")
    try:
        module = _file(place) if place.endswith(".py") else importlib.import_module(place)
    except UserError:
        raise
    except ANYTHING as error:
        raise UserError(f"{reference!r}: cannot import {place}: {said(error)}") from error
    if not hasattr(module, name):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise choose(f"name in {place}", name, known)
    return getattr(module, name)


def anchored(reference: str) -> str:
    """Return ``file.py:name`` with the whole path, for use from any folder; others as they are."""
    place, _, name = reference.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(".py") else reference


def from_files() -> list[ModuleType]:
    """Return the modules read from files, which other processes cannot import by name."""
    return list(_files)


def file_of(kind: str, name: str, thing: Any) -> ModuleType | None:
    """Return the module in which an object of ``kind`` named ``name`` is; None: unknown."""
    builtin = sys.modules.get(f"{KINDS[kind].package}.{name}")
    return builtin or sys.modules.get(getattr(thing, "__module__", ""))


def _builtins(kind: str) -> set[str]:
    package = KINDS[kind].package
    spec = importlib.util.find_spec(package) if package else None
    places = spec.submodule_search_locations if spec else None
    return {
        module.name
        for module in pkgutil.iter_modules(places or [])
        if not module.ispkg and _may_be_builtin(kind, module.name)
    }


def _may_be_builtin(kind: str, name: str) -> bool:
    return not name.startswith("_") and name not in KINDS[kind].besides


def _builtin(kind: str, name: str) -> Any:
    place, one = f"{KINDS[kind].package}.{name}", KINDS[kind].one
    try:
        with held():  # of libraries in C, half an import is worse than none
            module = importlib.import_module(place)
    except Exception as error:  # a file that its author is still at
        raise UserError(f"{one} {name!r}: cannot import {place}: {error}") from error
    member = KINDS[kind].member or name
    alike = [n for n in vars(module) if _plain(n) == _plain(member)]
    names = [n for n in alike if not ismodule(getattr(module, n))]
    if not names:
        raise UserError(f"{one} {name!r}: {module.__file__} has no {member}; name it as the file")
    return getattr(module, member if member in names else names[0])


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _points(kind: str) -> EntryPoints:
    return entry_points(group=f"fedjoint.{kind}")


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
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))  # the file may import its neighbours
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        _files.append(module)
    return sys.modules[name]
