"""Mine fields: 29 clients, each a task of its own, with few mines among its radar readings.

    FEDJOINT_DATA=~/data fedjoint compare landmine

``FEDJOINT_DATA`` (default ``../shared/data``) has ``tabular/landmine.csv``: nine features of
14,820 places in 29 fields, of which 6 % hold a mine (Xue et al. 2007). Every field has one task
under one name, and a head of its own; metrics are of each field. The loss weighs mines fifteen
times, as balanced error counts both classes alike.
"""

from __future__ import annotations

from typing import Any

import fedjoint

from ._data import table
from ._script import progress, script, show


def config() -> dict[str, Any]:
    """Return the scenario."""
    return {
        "name": "landmine",
        "rounds": 60,
        "data": {
            "source": {
                "name": "csv",
                "options": {
                    "path": table("landmine.csv"),
                    "targets": {"mine": "multiclass"},
                    "client_column": "field",
                },
            },
            "partition": "natural",
            "clients_are_tasks": True,
            "valid_fraction": 0.15,
            "test_fraction": 0.25,
        },
        "metrics": {"mine": ["auroc", "balanced_accuracy"]},
        "losses": {"mine": {"name": "cross_entropy", "options": {"class_weights": [1.0, 15.0]}}},
        "model": {"backbone": {"name": "mlp", "options": {"hidden": [32, 16]}}},
        "local": {
            "epochs": 1,
            "batch_size": 32,
            "optimiser": {"name": "sgd", "lr": 0.05, "momentum": 0.5},
        },
        "strategy": {"name": "fedavg", "weight_by": "client"},
        "evaluate": {"every": 2},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
