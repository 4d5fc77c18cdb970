"""Operations that a batched program runs for one client after the other, and how that is said."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: PyTorch's warning of an operation that ``vmap`` cannot batch; it comes with every program.
_WARNING = "There is a performance drop because we have not yet implemented the batching rule for "

# Said once by each trainer, see :func:`slow_operations`, and then not again at every call.
warnings.filterwarnings("ignore", message=_WARNING)


@contextmanager
def slow_operations() -> Iterator[list[str]]:
    """Yield a list; in the end it has the operations without a batching rule that were run inside.

    Other warnings are shown as they would be.
    """
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message=_WARNING)
        yield found
    for each in caught:
        text = str(each.message)
        if text.startswith(_WARNING):
            name = re.match(r"[\w:]+", text.removeprefix(_WARNING))
            found.extend([name[0]] if name and name[0] not in found else [])
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def in_words(operations: list[str]) -> str:
    """Say that a batched program is slow where it runs ``operations``."""
    more = f" and {len(operations) - 1} more" if operations[1:] else ""
    return (
        f"clients train as one batched program, but PyTorch runs {operations[0]}{more} for one "
        "after the other: where that is slow, set local.path = 'sequential'"
    )
