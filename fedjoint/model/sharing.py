"""Which tensors of the backbone are shared, by patterns of names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase

from fedjoint.errors import UserError

_SAID = 8  # names in a message


def choose_shared(
    patterns: Sequence[str],
    learnt: Collection[str],
    statistics: Collection[str],
    frozen: Collection[str],
) -> set[str]:
    """Return the names that ``patterns`` share.

    A pattern is as in a shell (``*``, ``?``, ``[...]``) and adds the names that it matches; one
    that begins with ``!`` takes them away. Later ones win.

    Args:
        patterns: the setting ``model.share``.
        learnt: names of the backbone's parameters that are trained and may be shared.
        statistics: names of its buffers that may be.
        frozen: names of what does not train.

    Raises:
        UserError: a pattern matches nothing, or no parameter is left to be shared.
    """
    if not learnt:
        raise UserError(
            "the backbone has no parameter that is trained and may be shared: set requires_grad of "
            "some to True"
        )
    names = [*learnt, *statistics]
    shared = chosen(patterns, names, lambda pattern: _no_match(pattern, names, frozen))
    if shared.isdisjoint(learnt):
        raise UserError(
            f"model.share = {list(patterns)} shares no parameter: begin it with '*', or train "
            "everyone alone with local.method = 'independent'"
        )
    return shared


def chosen(
    patterns: Sequence[str], names: Collection[str], unmatched: Callable[[str], UserError | None]
) -> set[str]:
    """Return the ``names`` that ``patterns`` add and do not take away.

    Args:
        patterns: as for :func:`choose_shared`.
        names: to choose from.
        unmatched: a pattern that matches no name -> the error to raise; None: it may.
    """
    found = set[str]()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern.removeprefix("!"))}
        if not matched and (error := unmatched(pattern)):
            raise error
        found = found - matched if pattern.startswith("!") else found | matched
    return found


def _no_match(pattern: str, names: Collection[str], frozen: Collection[str]) -> UserError:
    bare = pattern.removeprefix("!")
    what = f"model.share: {pattern!r} matches"
    if bare.startswith("heads."):
        return UserError(
            f"{what} heads, which never leave their clients: leave it out; to share them, set "
            "model.heads = 'shared'"
        )
    if any(fnmatchcase(name, bare) for name in frozen):
        return UserError(f"{what} frozen tensors alone, which never travel: leave it out")
    some = ", ".join(list(names)[:_SAID]) + (", ..." if len(names) > _SAID else "")
    return UserError(f"{what} no tensor of the backbone that is trained; these are: {some}")
