"""Errors that a user can fix: one line saying what is wrong and how to put it right."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A bad input from outside (config, data, checkpoint, message), in one line.

    The command line prints the line alone and exits with status 2.
    """


def choose(what: str, name: str, allowed: Iterable[str]) -> UserError:
    """Return the error for an unknown ``name``: the allowed values and the nearest match."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {what} {name!r}: allowed are {', '.join(allowed)}{hint}")
