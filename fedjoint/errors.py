"""Errors that a user can fix: one line saying what is wrong and how to put it right."""

import difflib
import re
from collections.abc import Iterable

_WORD, _LINE = 200, 2000  # most characters of a word, and of a line

#: What a user's or another package's own code may raise: ``sys.exit()`` ends nothing of ours.
ANYTHING = (Exception, SystemExit)


class UserError(ValueError):
    """A bad input from outside (config, data, checkpoint, message), in one line.

    The command line prints the line alone and exits with status 2. What is long in it is cut, and
    line breaks and control characters are escaped: much of it comes from outside.
    """

    def __init__(self, text: object) -> None:
        super().__init__(one_line(text))


class OpenError(UserError):
    """A UserError whose text holds nothing of anybody's data: it may leave a node as it is."""


def one_line(text: object) -> str:
    """Return ``text`` in one line: nothing long, and no character that a terminal would obey."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    line = re.sub(rf"\S{{{_WORD},}}", lambda word: f"{word[0][:_WORD]}...", line)
    return line if len(line) <= _LINE else f"{line[:_LINE]}..."


def choose(what: str, name: str, allowed: Iterable[str]) -> UserError:
    """Return the error for an unknown ``name``: the allowed values and the nearest match."""
    allowed, name = sorted(allowed), name[:_WORD]
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {what} {name!r}: allowed are {', '.join(allowed)}{hint}")


def said(error: BaseException) -> str:
    """Return what an error of somebody else's code says, with its type, in one line."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code})"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
