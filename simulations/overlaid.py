"""Two digits in one image: the one above on the left, the one below on the right.

    FEDJOINT_DATA=~/data fedjoint compare overlaid

Images are made of MNIST's (see :mod:`fedjoint.simulations.mnist`): two are overlaid, eight pixels
apart both ways, as Sabour, Frosst and Hinton (2017) and the literature on multi-task learning after
them have it. Training images are of training digits alone. Half of the clients read the left digit,
and half the right one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

import fedjoint
from fedjoint.options import Count

from ._images import digits
from ._parts import dataset
from ._script import progress, script, show

TASKS = (
    fedjoint.Task("left", "multiclass", 10),
    fedjoint.Task("right", "multiclass", 10),
)

_APART = 8


class Overlaid(fedjoint.Source):
    """Two digits in each image.

    Args:
        train: images that are made of the training set.
        test: images that are made of the test set.
    """

    def __init__(self, train: Count = 12_000, test: Count = 2_000) -> None:
        self.train, self.test = train, test

    def load(self, data: fedjoint.DataConfig) -> fedjoint.Dataset:
        """Make the images; ``x`` is ``[n, 1, 36, 36]`` float32 in 0..1."""
        parts = []
        for count, test in ((self.train, False), (self.test, True)):
            x, digit = digits(count, test=test)
            other = torch.arange(len(x)).roll(1)  # the files are in random order
            left = F.pad(x, (0, _APART, 0, _APART))
            right = F.pad(x[other], (_APART, 0, _APART, 0))
            labels = {"left": digit, "right": digit[other]}
            parts.append((torch.maximum(left, right), labels, test))
        return dataset(TASKS, parts)


def config() -> dict[str, Any]:
    """Return the scenario."""
    return {
        "name": "overlaid",
        "rounds": 30,
        "data": {
            "source": {"name": "fedjoint.simulations.overlaid:Overlaid"},
            "clients": 12,
            "partition": "one_task",
            "examples_per_client": 200,
        },
        "model": {"backbone": {"name": "cnn", "options": {"hidden": [8, 16, 16]}}},
        "local": {
            "epochs": 2,
            "batch_size": 16,
            "optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.5},
        },
        "strategy": {"name": "fedavg", "weight_by": "task"},
        "evaluate": {"every": 2},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
