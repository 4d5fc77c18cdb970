"""Breast tumours: twelve clinics that measured different things, 569 patients in all.

    fedjoint simulate tabular

The data (Wolberg, Street and Mangasarian 1995) comes with scikit-learn. The inputs describe the
cell nuclei of a sample by their means and standard errors. The tasks are the diagnosis, and two
properties of the sample's most abnormal nuclei. It also shows how to bring data of one's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

import fedjoint

from ._script import progress, script, show

TASKS = (
    fedjoint.Task("malignant", "multiclass", 2),
    # Mean and standard deviation over all patients: constants, so that clinics scale alike.
    fedjoint.Task("texture", "regression", 1, scale=(25.68, 6.141)),
    fedjoint.Task("concavity", "regression", 1, scale=(0.2722, 0.2085)),
)


def config() -> dict[str, Any]:
    """Return the scenario: half of the clinics have two tasks."""
    return {
        "name": "tabular",
        "rounds": 40,
        "data": {
            "source": {"name": "fedjoint.simulations.tabular:Patients"},
            "clients": 12,
            "task_mix": [
                ["malignant"],
                ["texture"],
                ["malignant", "concavity"],
                ["texture", "concavity"],
            ],
            "partition": "dirichlet",
            "alpha": 1.0,
            "by": "malignant",
        },
        "model": {"backbone": {"name": "mlp", "options": {"hidden": [32, 16]}}},
        "local": {
            "epochs": 2,
            "batch_size": 8,
            "optimiser": {"lr": 0.01, "momentum": 0.5},
        },
        "strategy": {"name": "fedavgm", "weight_by": "task"},
    }


class Patients(fedjoint.Source):
    """The patients and their tumours."""

    standardise = True

    def load(self, data: fedjoint.DataConfig) -> fedjoint.Dataset:
        """Load the patients; ``x`` is ``[569, 20]`` float32."""
        found = load_breast_cancer()
        values = dict(zip(found.feature_names, found.data.astype(np.float32).T, strict=True))
        inputs = [name for name in found.feature_names if not name.startswith("worst")]
        y = {
            "malignant": torch.from_numpy((found.target == 0).astype(np.int64)),
            "texture": torch.from_numpy(values["worst texture"][:, None]),
            "concavity": torch.from_numpy(values["worst concavity"][:, None]),
        }
        x = torch.from_numpy(np.stack([values[name] for name in inputs], 1))
        return fedjoint.Dataset(TASKS, fedjoint.Examples(x, y))


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
