"""Text that another machine wrote, fit for logs and terminals."""

from __future__ import annotations

_MOST = 500  # characters


def plain(text: object) -> str:
    """Return ``text`` in one line without control characters, cut where it is very long."""
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _MOST else line[:_MOST] + "..."
