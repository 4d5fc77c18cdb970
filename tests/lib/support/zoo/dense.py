"""Images and sequences in; maps, boxes, tokens and preferences out."""

import torch
from support.people import Unequal
from torch import nn

from fedjoint import EachItem, Examples, Problem, Task, next_tokens

SIDE, LENGTH, WORDS = 8, 6, 11


def _image():
    """Maps of half the side."""
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Dropout(0.1))


def _problem(config, tasks, backbone, examples, example):
    return Problem(tasks, backbone, Unequal(tasks, examples, config.seed), example)


def _places(count, rng):
    x = torch.randn(count, 1, SIDE, SIDE, generator=rng)
    regions = (x[:, 0] > 0.3).long() + (x[:, 0] > 1).long()
    regions[:, 0] = -1  # an edge that nobody has drawn
    regions[::7] = -1  # and some images
    depth = torch.cat([x * 3 + 5, x.square()], 1)
    depth[:, 1, :2] = torch.nan
    depth[1::7] = torch.nan
    return Examples(x, {"regions": regions, "depth": depth, "kind": (x.mean((1, 2, 3)) > 0).long()})


def segmentation(config):
    """Classes of places, of which some are unknown."""
    task = Task("regions", "segmentation", 3, size=(SIDE, SIDE), metric=["miou", "accuracy"])
    return _problem(config, [task], _image, _places, torch.zeros(1, 1, SIDE, SIDE))


def maps_and_classes(config):
    """A dict of features: maps for places and numbers, a vector for a class."""
    size = SIDE, SIDE
    tasks = [
        Task("regions", "segmentation", 3, size=size, loss="focal", metric=["accuracy", "auroc"]),
        Task("depth", "dense_regression", 2, size=size, loss="huber", metric=["mae", "rmse"]),
        Task("kind", "multiclass", 2, metric=["average_precision", "calibration_error"]),
    ]
    return _problem(config, tasks, _Both, _places, torch.zeros(1, 1, SIDE, SIDE))


class _Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = _image()

    def forward(self, x):
        maps = self.body(x)
        return {"map": maps, "vector": maps.mean((2, 3))}


def _boxes(count, rng):
    """One or two bright squares of two sizes."""
    x = 0.1 * torch.randn(count, 1, SIDE, SIDE, generator=rng)
    y = torch.full((count, 2, 5), -1.0)
    for image in range(count):
        for box in range(1 + int(torch.randint(2, (1,), generator=rng))):
            kind = int(torch.randint(2, (1,), generator=rng))
            side = 2 + 2 * kind
            left, top = torch.randint(SIDE - side + 1, (2,), generator=rng).tolist()
            x[image, 0, top : top + side, left : left + side] += 1
            corners = torch.tensor([left, top, left + side, top + side]) / SIDE
            y[image, box] = torch.tensor([kind, *corners])
    y[::6] = torch.nan
    return Examples(x, {"squares": y})


def detection(config):
    """Boxes by their centres."""
    task = Task("squares", "detection", 2, size=(2,))
    return _problem(config, [task], _image, _boxes, torch.zeros(1, 1, SIDE, SIDE))


def _sentences(count, rng):
    x = torch.randint(1, WORDS, (count, LENGTH), generator=rng)
    for row, length in enumerate(torch.randint(2, LENGTH + 1, (count,), generator=rng).tolist()):
        x[row, length:] = 0
    parts = torch.where(x > 0, x % 3, -1)
    return Examples(x, {"part": parts, "next": next_tokens(x, padding=0)})


class _Causal(nn.Module):
    """Of each position, the mean of it and those before."""

    def __init__(self):
        super().__init__()
        self.words, self.layer = nn.Embedding(WORDS, 8), nn.Linear(8, 8)

    def forward(self, x):
        steps = torch.arange(1, x.shape[1] + 1, device=x.device)
        return torch.tanh(self.layer(self.words(x).cumsum(1) / steps[:, None]))


def tokens(config):
    """A class of each word of sentences of unequal length, and the next word."""
    tasks = [
        Task("part", "tokens", 3, size=(LENGTH,), metric=["macro_f1", "balanced_accuracy"]),
        Task("next", "language", WORDS, size=(LENGTH,)),
    ]
    example = torch.ones(1, LENGTH, dtype=torch.int64)
    return _problem(config, tasks, _Causal, _sentences, example)


def _pairs(count, rng):
    x = torch.randn(count, 2, 5, generator=rng)
    better = (x[:, 1].sum(1) > x[:, 0].sum(1)).long()
    better[::5] = -1
    return Examples(x, {"better": better})


def preference(config):
    """Which of two is better."""
    backbone = lambda: EachItem(nn.Sequential(nn.Linear(5, 8), nn.ReLU()))  # noqa: E731
    task = Task("better", "preference", 2)
    return _problem(config, [task], backbone, _pairs, torch.zeros(1, 2, 5))
