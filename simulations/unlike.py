"""Handwritten digits: twelve clients of unequal power, with three models that share little.

    fedjoint simulate unlike
    python -m simulations.unlike --rounds 5
    python -m simulations.couplings --seeds 5

A third of the clients train a perceptron, a third a convolutional network and a third a small
transformer, on the same tasks. Each ends in a trunk of one shape. The last command measures what
the groups gain from one another, see docs/groups.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fedjoint

from ._script import progress, script, show

#: width of what models make of an image, and of the trunk's features
BODY, FEATURES = 32, 32

SIDE, PATCH = 8, 2


class Trunked(nn.Module):
    """A group's own body below a trunk of the same shape in every group."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.trunk = nn.Sequential(nn.ReLU(), nn.Linear(BODY, FEATURES), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return the features ``[n, 32]`` of images ``[n, 64]``."""
        return self.trunk(self.body(x))


def mlp(inputs: fedjoint.Inputs) -> nn.Module:
    """Return a perceptron."""
    return Trunked(nn.Sequential(nn.Linear(inputs.size, 64), nn.ReLU(), nn.Linear(64, BODY)))


def cnn(_inputs: fedjoint.Inputs) -> nn.Module:
    """Return a convolutional network."""
    layers = [
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, BODY),
    ]
    return Trunked(nn.Sequential(*layers))


def transformer(_inputs: fedjoint.Inputs) -> nn.Module:
    """Return a transformer of one layer over sixteen patches of 2 x 2 pixels."""
    return Trunked(Patches())


class Patches(nn.Module):
    """Attention over the patches of an image, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH * PATCH, BODY)
        self.place = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, BODY) / BODY**0.5)
        self.mixed, self.out = nn.Linear(BODY, 3 * BODY), nn.Linear(BODY, BODY)
        self.wide = nn.Sequential(nn.Linear(BODY, 2 * BODY), nn.ReLU(), nn.Linear(2 * BODY, BODY))
        self.first, self.second = nn.LayerNorm(BODY), nn.LayerNorm(BODY)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, 32]`` of images ``[n, 64]``."""
        cut = x.view(-1, SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).transpose(2, 3)
        tokens = self.embed(cut.reshape(len(x), -1, PATCH * PATCH)) + self.place
        query, key, value = self.mixed(self.first(tokens)).chunk(3, -1)
        weights = (query @ key.mT / BODY**0.5).softmax(-1)
        tokens = tokens + self.out(weights @ value)
        return (tokens + self.wide(self.second(tokens))).mean(1)


def config() -> dict[str, Any]:
    """Return the scenario: each group by itself, until something couples them."""
    here = "fedjoint.simulations.unlike"
    return {
        "name": "unlike",
        "rounds": 25,
        "data": {
            "source": {"name": "digits"},
            "clients": 12,
            "partition": "dirichlet",
            "alpha": 1.0,
            "task_mix": [["digit", "parity"]],
            "examples_per_client": 40,
            "public_share": 0.25,
        },
        "model": {
            "groups": {
                name: {"clients": list(range(place, 12, 3)), "backbone": {"name": f"{here}:{name}"}}
                for place, name in enumerate(("mlp", "cnn", "transformer"))
            },
        },
        "local": {
            "epochs": 4,
            "batch_size": 16,
            "optimiser": {"name": "adam", "lr": 0.005},
        },
        "strategy": {"name": "fedavg"},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
