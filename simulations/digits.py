"""Handwritten digits: 20 clients, skewed labels, and not everyone learns the same.

    fedjoint simulate digits
    python -m simulations.digits --rounds 5

The second is this file as a script, which shows the Python API.
"""

from __future__ import annotations

from typing import Any

import fedjoint

from ._script import progress, script, show


def config() -> dict[str, Any]:
    """Return the default scenario."""
    return {
        "name": "digits",
        "rounds": 60,
        "data": {
            "source": {"name": "digits"},
            "clients": 20,
            "partition": "dirichlet",
            "alpha": 0.5,
        },
        "model": {"backbone": {"name": "mlp", "options": {"hidden": [128, 64]}}},
        "local": {
            "epochs": 2,
            "batch_size": 16,
            "optimiser": {"name": "sgd", "lr": 0.05, "momentum": 0.5},
            "lr_decay": 0.97,
        },
        # Few clients have the rarer tasks: weighing by task lets each pull alike.
        "strategy": {"name": "fedavgm", "weight_by": "task"},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
