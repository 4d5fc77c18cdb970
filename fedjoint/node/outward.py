"""What of an error may leave a node with data of its own."""

from __future__ import annotations

from fedjoint.errors import OpenError

_SEE = "the log of its node says why"


def outward(error: BaseException) -> str:
    """Return a line about an error that holds nothing of a node's data, paths or columns.

    The texts of most errors quote what they found: cells, labels, names of columns, files.
    """
    if isinstance(error, OpenError):
        return str(error)
    if isinstance(error, ValueError):  # a UserError is one, too
        return f"its data, model or settings are refused: {_SEE}"
    return f"it fails ({type(error).__name__}): {_SEE}"
