"""Exam marks of 139 London schools: each is a client, and a task of its own.

    FEDJOINT_DATA=~/data fedjoint compare school

``FEDJOINT_DATA`` (default ``../shared/data``) has ``tabular/school.csv``: 28 features and the mark
of 15,362 pupils, the classic of multi-task regression (Argyriou et al. 2008). Every school has one
task under one name, and a head of its own. The metric that decides is the root mean squared error:
R2 of a school with a dozen test pupils may be anything below 1. The literature's explained variance
is R2 of all schools pooled.
"""

from __future__ import annotations

from typing import Any

import fedjoint

from ._data import table
from ._script import progress, script, show


def config() -> dict[str, Any]:
    """Return the scenario."""
    return {
        "name": "school",
        "rounds": 60,
        "data": {
            "source": {
                "name": "csv",
                "options": {
                    "path": table("school.csv"),
                    "targets": {"score": "regression"},
                    "client_column": "school",
                },
            },
            "partition": "natural",
            "clients_are_tasks": True,
            "valid_fraction": 0.15,
            "test_fraction": 0.25,
            # Mean and deviation over all pupils: the marks are of one exam.
            "target_scale": {"score": [20.6, 12.72]},
        },
        "metrics": {"score": ["rmse", "r2"]},
        "model": {"backbone": {"name": "mlp", "options": {"hidden": [32, 16]}}},
        "local": {
            "epochs": 1,
            "batch_size": 16,
            "optimiser": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        },
        "strategy": {"name": "fedavg", "weight_by": "client"},
        "evaluate": {"every": 2},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
