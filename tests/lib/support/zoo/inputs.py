"""Inputs that are more than one tensor of one size: dicts, text of unequal length, streams."""

import torch
from support.people import Unequal
from torch import nn

from fedjoint import Client, Examples, Problem, Stream, Task

_WORDS, _LONGEST = 20, 9


class _Attending(nn.Module):
    """One layer of attention over words; what the mask says is padding is seen by nobody."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(_WORDS, 8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        words, present = self.table(x["ids"]), x["mask"]
        scores = self.query(words) @ self.key(words).transpose(1, 2) / 8**0.5
        weights = scores.masked_fill(~present[:, None], -1e9).softmax(-1)
        found = self.drop(weights) @ self.value(words)
        count = present.sum(1, keepdim=True).clamp(min=1)
        return (found * present.unsqueeze(-1)).sum(1) / count


def _sentences(count, rng):
    """Sentences of one to as many words as this client's longest has."""
    longest = 4 + count % 6
    lengths = torch.randint(1, longest + 1, (count,), generator=rng)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.randint(_WORDS, mask.shape, generator=rng) * mask
    return Examples({"ids": ids, "mask": mask}, {"first": (ids[:, 0] > _WORDS // 2).long()})


def ragged_text(config):
    """Sentences of unequal length with their mask; no client knows of the longest of another."""
    tasks = [Task("first", "multiclass", 2)]
    ids = torch.zeros(1, _LONGEST, dtype=torch.int64)
    return Problem(
        tasks,
        _Attending,
        Unequal(tasks, _sentences, config.seed),
        {"ids": ids, "mask": ids == 0},
        pad={"ids": 0, "mask": False},
    )


class _Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
        self.numbers = nn.Linear(3, 4)

    def forward(self, x):
        return torch.cat([self.image(x["image"]), self.numbers(x["numbers"])], 1).tanh()


def _modalities(count, rng):
    image = torch.rand(count, 1, 4, 4, generator=rng)
    numbers = torch.randn(count, 3, generator=rng)
    total = image.mean((1, 2, 3)) + numbers[:, 0]
    return Examples({"image": image, "numbers": numbers}, {"total": total[:, None]})


def two_modalities(config):
    """An image and numbers."""
    tasks = [Task("total", "regression", 1)]
    example = {"image": torch.zeros(1, 1, 4, 4), "numbers": torch.zeros(1, 3)}
    return Problem(tasks, _Two, Unequal(tasks, _modalities, config.seed), example)


class _Streamed(Unequal):
    def client(self, index):
        found = super().client(index)
        parts = (found.train, found.valid, found.test)
        return Client(*(Examples(Stream(part.x.numpy()), part.y) for part in parts))


def _points(count, rng):
    x = torch.randn(count, 5, generator=rng)
    return Examples(x, {"up": (x[:, 0] > 0).long()})


def streamed(config):
    """Inputs that are read when they are needed."""
    tasks = [Task("up", "multiclass", 2)]
    return Problem(
        tasks,
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh()),
        _Streamed(tasks, _points, config.seed),
        torch.zeros(1, 5),
    )


def _own_sets(seed):
    """Return a training, a validation and a test set, with labels by task."""
    rng = torch.Generator().manual_seed(seed)
    for count in (9 + seed % 4, 4, 6):
        found = _points(count, rng)
        yield [(x, {"up": int(up)}) for x, up in zip(found.x, found.y["up"], strict=True)]


def datasets(config):
    """A dataset of PyTorch for each client."""
    sets = {f"client {k}": tuple(_own_sets(10 * config.seed + k)) for k in range(4)}
    tasks = [Task("up", "multiclass", 2)]
    return Problem.from_datasets(
        tasks, lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh()), sets, config=config
    )
