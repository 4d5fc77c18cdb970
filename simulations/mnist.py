"""MNIST: digit, parity, at least five, and how far an image is turned, one task with each client.

    FEDJOINT_DATA=~/data fedjoint compare mnist

``FEDJOINT_DATA`` (default ``../shared/data``) has the four files of MNIST (LeCun et al. 1998) in
its folder ``vision/mnist``. Parity and size are classes above the digits. Turned images are others
than upright ones: no image is seen as both.
"""

from __future__ import annotations

from typing import Any

import torch

import fedjoint
from fedjoint.options import Count

from ._images import digits
from ._parts import dataset
from ._script import progress, script, show

TASKS = (
    fedjoint.Task("digit", "multiclass", 10),
    fedjoint.Task("parity", "multiclass", 2),
    fedjoint.Task("high", "multiclass", 2),  # five or more
    fedjoint.Task("turn", "multiclass", 4),  # by 0, 90, 180 or 270 degrees
)


class Turned(fedjoint.Source):
    """Digits, of which three in four are upright, and the others turned by quarters.

    Args:
        train: images that are read of the training set.
        test: images that are read of the test set.
    """

    def __init__(self, train: Count = 12_000, test: Count = 2_000) -> None:
        self.train, self.test = train, test

    def load(self, data: fedjoint.DataConfig) -> fedjoint.Dataset:
        """Load the images; ``x`` is ``[n, 1, 28, 28]`` float32 in 0..1."""
        parts = []
        for count, test in ((self.train, False), (self.test, True)):
            x, digit = digits(count, test=test)
            upright = 3 * len(x) // 4
            own = digit[:upright]
            labels = {"digit": own, "parity": own % 2, "high": (own >= 5).long()}
            parts.append((x[:upright], labels, test))
            turn = torch.arange(len(x) - upright) % 4
            turned = [
                torch.rot90(image, int(k), (1, 2))
                for image, k in zip(x[upright:], turn, strict=True)
            ]
            parts.append((torch.stack(turned), {"turn": turn}, test))
        return dataset(TASKS, parts)


def config() -> dict[str, Any]:
    """Return the scenario."""
    return {
        "name": "mnist",
        "rounds": 30,
        "data": {
            "source": {"name": "fedjoint.simulations.mnist:Turned"},
            "clients": 16,
            "partition": "one_task",
            "examples_per_client": 60,
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
