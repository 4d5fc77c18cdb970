"""Two regression tasks that pull one backbone apart by a known angle.

    fedjoint simulate conflict --set data.source.options.conflict_degrees=120

Three clients in four have ``task0``, the others ``task1``: a rule that follows the many sacrifices
``task1``. The heads are fixed, so the best backbone is known (see
:mod:`fedjoint.data.sources.synthetic`). One backbone for both tasks has a mean R2 of at most
``(1 + cos(angle)) / 2 / (1 + noise^2)``, with the tasks equally weighed; one backbone each reaches
``1 / (1 + noise^2)`` at any angle.
"""

from __future__ import annotations

from typing import Any

import fedjoint

from ._script import progress, script, show


def config() -> dict[str, Any]:
    """Return the scenario with a right angle."""
    return {
        "name": "conflict",
        "rounds": 40,
        "data": {
            "source": {
                "name": "synthetic",
                "options": {"tasks": 2, "inputs": 16, "conflict_degrees": 90.0, "noise": 0.1},
            },
            "clients": 16,
            "examples_per_client": 91,  # 128 with those for validation and test
            "task_mix": [["task0"], ["task0"], ["task0"], ["task1"]],
        },
        "model": {"backbone": {"name": "mlp", "options": {"hidden": [32]}}},
        # Fast enough that 40 rounds converge: what is left to see are the rules' optima.
        "local": {"steps": 8, "batch_size": 16, "optimiser": {"lr": 0.2}},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
