"""Words for logs and terminals, some of which another machine wrote."""

from __future__ import annotations

_MOST = 500  # characters


def plain(text: object) -> str:
    """Return ``text`` in one line without control characters, cut where it is very long."""
    # A hostile text of megabytes is cut before anything else; white space may still shorten it.
    line = " ".join(str(text)[: 10 * _MOST].split())[: _MOST + 1]
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _MOST else line[:_MOST] + "..."


def figure(value: float, digits: int) -> str:
    """Return a number with so many digits after the point; from a thousand on, in powers of ten.

    Only what has diverged is that large, and a table need not grow with it.
    """
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.1e}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def who(client: int | None, node: object) -> str:
    """Say who failed: ``client`` of ``node``, or ``node`` itself where it is None."""
    return f"node {node}" if client is None else f"client {client} (node {node})"
