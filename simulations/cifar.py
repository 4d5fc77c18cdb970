"""CIFAR-10: class, animal or vehicle, and two attributes of the pixels, one task with each client.

    FEDJOINT_DATA=~/data fedjoint compare cifar

``FEDJOINT_DATA`` (default ``../shared/data``) has ``train.parquet`` and ``test.parquet`` of
CIFAR-10 (Krizhevsky 2009), as the Hugging Face hub lays it out, in its folder ``vision/cifar10``.
Attributes are of pixels: the mean colour, and which quarter of the image is brightest.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

import fedjoint
from fedjoint.options import Count

from ._images import objects
from ._parts import dataset
from ._script import progress, script, show

#: classes that are animals: bird, cat, deer, dog, frog, horse
ANIMALS = (2, 3, 4, 5, 6, 7)

TASKS = (
    fedjoint.Task("class", "multiclass", 10),
    fedjoint.Task("animal", "multiclass", 2),
    fedjoint.Task("colour", "regression", 3, scale=(0.47, 0.15)),  # of red, green and blue
    fedjoint.Task("bright", "multiclass", 4),
)


class Objects(fedjoint.Source):
    """Images of ten classes, with attributes of their pixels.

    Args:
        train: images that are read of the training set.
        test: images that are read of the test set.
    """

    def __init__(self, train: Count = 10_000, test: Count = 2_000) -> None:
        self.train, self.test = train, test

    def load(self, data: fedjoint.DataConfig) -> fedjoint.Dataset:
        """Load the images; ``x`` is ``[n, 3, 32, 32]`` float32 in 0..1."""
        parts = []
        for count, test in ((self.train, False), (self.test, True)):
            x, kind = objects(count, test=test)
            quarters = F.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)
            labels = {
                "class": kind,
                "animal": torch.isin(kind, torch.tensor(ANIMALS)).long(),
                "colour": x.mean((2, 3)),
                "bright": quarters.argmax(1),
            }
            parts.append((x, labels, test))
        return dataset(TASKS, parts)


def config() -> dict[str, Any]:
    """Return the scenario."""
    return {
        "name": "cifar",
        "rounds": 30,
        "data": {
            "source": {"name": "fedjoint.simulations.cifar:Objects"},
            "clients": 16,
            "partition": "one_task",
            "examples_per_client": 100,
        },
        "model": {"backbone": {"name": "cnn", "options": {"hidden": [16, 32, 32]}}},
        "local": {
            "epochs": 2,
            "batch_size": 16,
            "optimiser": {"name": "sgd", "lr": 0.05, "momentum": 0.5},
        },
        "strategy": {"name": "fedavg", "weight_by": "task"},
        "evaluate": {"every": 2},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
