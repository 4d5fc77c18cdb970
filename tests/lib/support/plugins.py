"""Plug-ins as a configuration names them."""

from __future__ import annotations

from typing import Any


def plugin(name: str, /, **options: Any) -> dict[str, Any]:
    """Return what names a plug-in with its options."""
    return {"name": name, "options": options}
