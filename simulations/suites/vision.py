"""Images: classes and what lies above them, attributes of pixels, two digits, places of scenes."""

from __future__ import annotations

from typing import Any


def suite() -> dict[str, Any]:
    """MNIST, CIFAR-10, two digits in one image, and dense tasks on generated scenes."""
    return {
        "name": "vision",
        "smoke": ["rounds=2", "data.examples_per_client=24"],
        "comparisons": {
            "mnist-60": {"scenario": "mnist"},
            "mnist-200": {"scenario": "mnist", "set": ["data.examples_per_client=200"]},
            "cifar-100": {"scenario": "cifar"},
            "cifar-400": {"scenario": "cifar", "set": ["data.examples_per_client=400"]},
            "overlaid-200": {"scenario": "overlaid"},
            "scenes-40": {"scenario": "scenes"},
        },
    }
