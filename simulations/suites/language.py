"""The next character, by the lines that a client has."""

from __future__ import annotations

from typing import Any


def suite() -> dict[str, Any]:
    """Questions, phrases and reviews, two sizes of clients."""
    return {
        "name": "language",
        "smoke": ["rounds=2", "data.clients=6", "data.examples_per_client=20"],
        "comparisons": {
            "letters-50": {"scenario": "letters"},
            "letters-200": {"scenario": "letters", "set": ["data.examples_per_client=200"]},
        },
    }
