"""Tables: mine fields and schools, of which every client is a task of its own."""

from __future__ import annotations

from typing import Any


def suite() -> dict[str, Any]:
    """Landmine and school, whose clients are tasks of their own."""
    return {
        "name": "tabular",
        "comparisons": {
            "landmine": {"scenario": "landmine"},
            "school": {"scenario": "school"},
        },
    }
