"""Two regression tasks that pull one backbone apart by a known angle.

    fedjoint simulate conflict --set data.synthetic.conflict_degrees=120

The heads are fixed, so the best backbone for both is known: at 0 degrees joint training loses
nothing, at 180 degrees everything (see :mod:`fedjoint.data.synthetic`).
"""

from __future__ import annotations

from typing import Any


def config() -> dict[str, Any]:
    """Return the scenario with a right angle."""
    return {
        "name": "conflict",
        "rounds": 40,
        "data": {
            "source": "synthetic",
            "clients": 16,
            "examples_per_client": 128,
            "synthetic": {"tasks": 2, "inputs": 16, "conflict_degrees": 90.0, "noise": 0.1},
        },
        "model": {"backbone": "mlp", "hidden": [32]},
        "local": {"steps": 8, "batch_size": 16, "optimiser": {"lr": 0.05}},
    }
