"""Sentences again, read by a pretrained encoder of which adapters alone train and travel."""

from __future__ import annotations

from typing import Any


def suite() -> dict[str, Any]:
    """TREC and MR on MiniLM with adapters of low rank, two sizes of clients."""
    return {
        "name": "adapters",
        "smoke": ["rounds=2", "data.clients=4", "data.examples_per_client=16"],
        "comparisons": {
            "minilm-64": {"scenario": "adapters"},
            "minilm-200": {"scenario": "adapters", "set": ["data.examples_per_client=200"]},
        },
    }
