"""What is registered under which name, in the words of its own docstring."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any

from fedjoint.errors import UserError
from fedjoint.registry import find, registered

_MARKUP = re.compile(r":\w+:`~?(?:\w+\.)*(\w+)`|`+")


@dataclass(frozen=True)
class Entry:
    """Something registered.

    Attributes:
        names: all names of it, sorted.
        summary: the first line of its docstring; why it cannot be loaded, where it cannot.
        paper: the paper or papers that it is named after; empty where there is none.
        omits: what of the paper is left out, in a few words.
    """

    names: tuple[str, ...]
    summary: str
    paper: str = ""
    omits: str = ""


def catalogue(group: str) -> list[Entry]:
    """Return what is registered in ``group`` (strategies, methods or scenarios), by name."""
    found: dict[Any, Entry] = {}
    for name in registered(group):
        try:
            thing = find(group, name)
        except UserError as error:  # whatever another package registers may fail
            found[name] = Entry((name,), str(error))
            continue
        known = found.get(thing)
        names = (*known.names, name) if known else (name,)
        found[thing] = Entry(names, _summary(thing), _paper(thing), getattr(thing, "omits", ""))
    return list(found.values())


def _summary(thing: Any) -> str:
    # A scenario is a function, and its file says what it is about.
    told = thing if inspect.isclass(thing) else sys.modules.get(thing.__module__, thing)
    return _plain(inspect.cleandoc(told.__doc__ or thing.__doc__ or "").partition("\n")[0])


def _paper(thing: Any) -> str:
    told = re.search(
        r"^Papers?: (.+?)(?:\n\n|\Z)",
        inspect.cleandoc(thing.__doc__ or ""),
        re.MULTILINE | re.DOTALL,
    )
    if told is None:
        return ""
    same = re.fullmatch(r"as :class:`(\w+)`\.", told[1].strip())
    if same is None:
        return _plain(told[1])
    return next((_paper(base) for base in thing.__mro__ if base.__name__ == same[1]), "")


def _plain(text: str) -> str:
    """Return ``text`` in one line, without the marks of a docstring."""
    return " ".join(_MARKUP.sub(lambda m: m[1] or "", text).split())
