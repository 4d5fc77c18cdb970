"""Scenes with a label at every place: which shape is there, how far it is, and where edges are.

    fedjoint compare scenes

Scenes are generated: three shapes of random colour, size and distance before a ground that recedes;
nearer ones hide others, and what is far is paler. A third of the clients has each task. The
backbone is a small encoder and decoder, of which a head reads a map.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedjoint
from fedjoint.options import Count

from ._script import progress, script, show

SIDE, SHAPES = 24, 3

TASKS = (
    # ground, disc, square, diamond
    fedjoint.Task("shape", "segmentation", 4, size=(SIDE, SIDE), metric="miou"),
    fedjoint.Task("depth", "dense_regression", 1, size=(SIDE, SIDE), scale=(0.7, 0.2)),
    fedjoint.Task("edge", "segmentation", 2, size=(SIDE, SIDE), metric="miou"),
)


class Scenes(fedjoint.Source):
    """Scenes, the same ones for every seed.

    Args:
        count: how many.
    """

    def __init__(self, count: Count = 3_000) -> None:
        self.count = count

    def load(self, data: fedjoint.DataConfig) -> fedjoint.Dataset:
        """Make the scenes; ``x`` is ``[n, 3, 24, 24]`` float32."""
        x, shape, depth = scenes(self.count)
        y = {"shape": shape, "depth": depth[:, None], "edge": edges(shape)}
        return fedjoint.Dataset(TASKS, fedjoint.Examples(x, y))


@cache
def scenes(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images ``[n, 3, h, w]``, shapes ``[n, h, w]`` int64 and distances ``[n, h, w]``.

    Distances are from 0, which is near, to 1.
    """
    g = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=g)

    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    far = (1 - rows / (SIDE - 1)) * 0.4 + 0.6
    depth = far.expand(count, SIDE, SIDE).clone()
    colour = (0.3 + 0.2 * drawn(3, 1, 1)).expand(count, 3, SIDE, SIDE).clone()
    shape = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    for _ in range(SHAPES):
        kind = torch.randint(1, 4, (count, 1, 1), generator=g)
        near, own = 0.1 + 0.8 * drawn(1, 1), drawn(3, 1, 1)
        reach = 2 + 4 * drawn(1, 1)
        down, right = ((SIDE * drawn(1, 1) - place).abs() for place in (rows, columns))
        inside = torch.where(
            kind == 1, down**2 + right**2 < reach**2, torch.maximum(down, right) < reach
        )
        inside = torch.where(kind == 3, down + right < 1.3 * reach, inside) & (near < depth)
        depth, shape = torch.where(inside, near, depth), torch.where(inside, kind, shape)
        colour = torch.where(inside[:, None], own, colour)
    hazy = colour * (1 - 0.7 * depth[:, None]) + 0.5 * depth[:, None]
    return hazy + 0.05 * torch.randn(hazy.shape, generator=g), shape, depth


def edges(shape: Tensor) -> Tensor:
    """Return ``[n, h, w]`` int64, one where a neighbour has another shape."""
    own = shape[:, None].float()
    return (F.max_pool2d(own, 3, 1, 1) != -F.max_pool2d(-own, 3, 1, 1)).squeeze(1).long()


class Decoder(nn.Module):
    """An encoder of two steps, and a decoder that adds what the encoder saw, ``[n, 16, h, w]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1)
        self.back, self.out = nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.first(x))
        coarse = F.relu(self.second(F.max_pool2d(fine, 2)))
        coarse = coarse + F.relu(self.deep(coarse))
        up = F.relu(self.back(coarse)).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return F.relu(self.out(fine + up))


def decoder(inputs: fedjoint.Inputs) -> nn.Module:
    """Return the backbone."""
    return Decoder(inputs.shape[0])


def config() -> dict[str, Any]:
    """Return the scenario."""
    return {
        "name": "scenes",
        "rounds": 30,
        "data": {
            "source": {"name": "fedjoint.simulations.scenes:Scenes"},
            "clients": 12,
            "partition": "one_task",
            "examples_per_client": 40,
        },
        "model": {"backbone": {"name": "fedjoint.simulations.scenes:decoder"}},
        "local": {
            "epochs": 4,
            "batch_size": 8,
            "optimiser": {"name": "adam", "lr": 0.01},
        },
        "strategy": {"name": "fedavg", "weight_by": "task"},
        "evaluate": {"every": 2},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
