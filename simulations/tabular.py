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
from fedjoint.config.schema import Config
from fedjoint.data.assign import assign, task_matrix
from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.federation import PartitionedFederation
from fedjoint.model.backbones import mlp
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem
from fedjoint.randomness import Purpose, generator

from ._script import progress, script, show

TASKS = (
    Task("malignant", "multiclass", 2),
    Task("texture", "regression", 1),
    Task("concavity", "regression", 1),
)

# Mean and standard deviation over all patients: constants, so that clinics scale alike.
TEXTURE = (25.68, 6.141)
CONCAVITY = (0.2722, 0.2085)


def config() -> dict[str, Any]:
    """Return the scenario: half of the clinics have two tasks."""
    return {
        "name": "tabular",
        "rounds": 40,
        "problem": "simulations.tabular:problem",
        "data": {
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
        "model": {"backbone": "mlp", "hidden": [32, 16]},
        "local": {
            "epochs": 2,
            "batch_size": 8,
            "optimiser": {"lr": 0.01, "momentum": 0.5},
        },
        "strategy": {"name": "fedavgm", "weight_by": "task"},
    }


def problem(config: Config) -> Problem:
    """Return the tasks, the backbone, and the patients divided among the clinics."""
    data, dataset = config.data, load()
    holds = task_matrix(data.task_mix, dataset.task_names, data.clients)
    clinics = PartitionedFederation(
        dataset,
        assign(dataset, holds, data, generator(config.seed, Purpose.PARTITION)),
        holds,
        seed=config.seed,
        valid_fraction=data.valid_fraction,
        test_fraction=data.test_fraction,
        standardise=True,
    )
    x = dataset.examples.x

    def backbone() -> torch.nn.Module:
        return mlp(x.shape[1], config.model.hidden)

    return Problem(dataset.tasks, backbone, clinics, x[:1])


def load() -> Dataset:
    """Load the patients; ``x`` is ``[569, 20]`` float32."""
    found = load_breast_cancer()
    values = dict(zip(found.feature_names, found.data.astype(np.float32).T, strict=True))
    inputs = [name for name in found.feature_names if not name.startswith("worst")]
    y = {
        "malignant": torch.from_numpy((found.target == 0).astype(np.int64)),
        "texture": _target(values["worst texture"], TEXTURE),
        "concavity": _target(values["worst concavity"], CONCAVITY),
    }
    x = torch.from_numpy(np.stack([values[name] for name in inputs], 1))
    return Dataset(TASKS, Examples(x, y))


def _target(values: np.ndarray, scale: tuple[float, float]) -> torch.Tensor:
    mean, deviation = scale
    return torch.from_numpy((values[:, None] - mean) / deviation).float()


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
