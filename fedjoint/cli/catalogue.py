"""What is registered under which name, in the words of its own docstring."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

from fedjoint.errors import UserError
from fedjoint.options import Option, options_of
from fedjoint.registry import KINDS, file_of, find, registered

_MARKUP = re.compile(r":\w+:`~?(?:\w+\.)*(\w+)`|`+")


@dataclass(frozen=True)
class Entry:
    """Something registered.

    Attributes:
        names: all names of it, sorted.
        summary: the first line of its docstring; why it cannot be loaded, where it cannot.
        paper: the paper or papers that it is named after; empty where there is none.
        omits: what of the paper is left out, in a few words.
        options: its options, each with what its docstring says of it.
    """

    names: tuple[str, ...]
    summary: str
    paper: str = ""
    omits: str = ""
    options: list[tuple[Option, str]] = field(default_factory=list)


def catalogue(kind: str) -> list[Entry]:
    """Return what is registered of a kind, by name."""
    names_of: dict[Any, list[str]] = {}
    broken: list[Entry] = []
    for name in registered(kind):
        try:
            names_of.setdefault(find(kind, name), []).append(name)
        except UserError as error:  # whatever another package registers may fail
            broken.append(Entry((name,), str(error)))
    entries = [describe(kind, tuple(names), thing) for thing, names in names_of.items()]
    return sorted(entries + broken, key=lambda entry: entry.names)


def describe(kind: str, names: tuple[str, ...], thing: Any) -> Entry:
    """Return the entry of an object of ``kind`` with these names."""
    return Entry(
        names,
        _summary(kind, thing, file_of(kind, names[0], thing)),
        _paper(thing),
        getattr(thing, "omits", ""),
        _options(kind, thing),
    )


def _summary(kind: str, thing: Any, module: ModuleType | None) -> str:
    # A scenario is a function, and a metric an object: their files say what they are about.
    own = (inspect.isclass(thing) or inspect.isfunction(thing)) and not KINDS[kind].member
    text = (thing if own else module or thing).__doc__ or ""
    return _plain(inspect.cleandoc(text).partition("\n")[0])


def _paper(thing: Any) -> str:
    section = re.search(
        r"^Papers?: (.+?)(?:\n\n|\Z)",
        inspect.cleandoc(thing.__doc__ or ""),
        re.MULTILINE | re.DOTALL,
    )
    if section is None:
        return ""
    same = re.fullmatch(r"as :class:`(\w+)`\.", section[1].strip())
    if same is None:
        return _plain(section[1])
    return next((_paper(base) for base in thing.__mro__ if base.__name__ == same[1]), "")


def _options(kind: str, thing: Any) -> list[tuple[Option, str]]:
    if not (inspect.isclass(thing) or inspect.isfunction(thing)) or KINDS[kind].member:
        return []
    takes = options_of(partial(thing, *[None] * KINDS[kind].given))
    classes = inspect.getmro(thing) if inspect.isclass(thing) else [thing]
    meanings: dict[str, str] = {}
    for each in reversed(classes):
        meanings |= _arguments(each.__doc__ or "")
    return [(option, meanings.get(option.name, "")) for option in takes]


def _arguments(doc: str) -> dict[str, str]:
    """Return what the section ``Args:`` of a docstring says, by argument."""
    section = re.search(r"^Args:\n(.+?)(?=^\S|\Z)", inspect.cleandoc(doc), re.MULTILINE | re.DOTALL)
    arguments = re.findall(
        r"^    (\w+): (.+?)(?=^    \w|\Z)", section[1] if section else "", re.MULTILINE | re.DOTALL
    )
    return {name: _plain(text) for name, text in arguments}


def _plain(text: str) -> str:
    """Return ``text`` in one line, without the marks of a docstring."""
    return " ".join(_MARKUP.sub(lambda m: m[1] or "", text).split())
