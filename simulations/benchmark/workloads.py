"""What is trained: a model and a few examples for each of any number of clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint import Client, Examples, Problem, Task
from fedjoint.data.sources.digits import load
from fedjoint.errors import choose
from fedjoint.model.backbones.cnn import cnn
from fedjoint.model.backbones.hf import hf
from fedjoint.model.backbones.mlp import mlp
from fedjoint.model.backbones.text import TextBackbone
from fedjoint.model.inputs import Inputs
from fedjoint.model.pretrained.adapters import Lora
from fedjoint.model.stream import loaded
from fedjoint.model.tree import first

from .. import adapters
from .models import (
    Recurrent,
    Transformer,
    cifar_cnn,
    femnist_cnn,
    frozen_resnet8,
    resnet8,
    resnet18,
)

_SEED = 0


@dataclass(frozen=True)
class Workload:
    """A classification problem that every contestant trains alike.

    A client has a few examples drawn with replacement, and takes steps of SGD, one pass over these.

    Attributes:
        name: of the workload.
        x: ``[n, ...]`` the inputs that clients draw from.
        y: ``[n]`` int64 classes.
        classes: number of classes.
        backbone: makes a backbone with ``features`` outputs.
        features: outputs of the backbone.
        examples: of a client.
        batch: examples in a step.
        rate: the learning rate.
    """

    name: str
    x: Tensor
    y: Tensor
    classes: int
    backbone: Callable[[], nn.Module]
    features: int
    examples: int = 64
    batch: int = 16
    rate: float = 0.05

    @property
    def steps(self) -> int:
        """Steps of a client in a round."""
        return self.examples // self.batch

    @property
    def local(self) -> dict[str, Any]:
        """The same as fedjoint's settings of local training."""
        return {
            "steps": self.steps,
            "batch_size": self.batch,
            "optimiser": {"lr": self.rate},
        }

    def model(self) -> nn.Module:
        """Return a plain model, backbone and head, with the same initial weights every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return nn.Sequential(self.backbone(), nn.Linear(self.features, self.classes))

    def draws(self, clients: int) -> Tensor:
        """Return ``[clients, examples]`` int64, the positions of every client's examples."""
        rng = np.random.default_rng(_SEED)
        return torch.from_numpy(rng.integers(len(self.x), size=(clients, self.examples)))

    def problem(self, clients: int) -> Problem:
        """Return the same for fedjoint: one task, whose head stays with the client."""
        task = Task("label", "multiclass", self.classes)
        return Problem([task], self.backbone, Drawn(self, self.draws(clients)), self.x[:1])


class Drawn:
    """The clients of a workload as a :class:`fedjoint.data.base.Federation`, all for training."""

    task_names: tuple[str, ...] = ("label",)

    def __init__(self, workload: Workload, draws: Tensor) -> None:
        self.sizes = np.full(len(draws), workload.examples, np.int64)
        self.tasks = np.ones((len(draws), 1), bool)
        self._draws = draws
        self._all = Examples(workload.x, {"label": workload.y})
        self._none = self._all.take(draws[0, :0])

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        return Client(self._all.take(self._draws[index]), self._none, self._none)


@cache
def workload(name: str) -> Workload:
    """Return the workload ``name``.

    Raises:
        UserError: there is none of this name.
    """
    if name not in WORKLOADS:
        raise choose("workload", name, WORKLOADS)
    return WORKLOADS[name]()


def _digits(name: str, backbone: Callable[[], nn.Module], features: int) -> Workload:
    digits = load()
    x, y = first(loaded(digits.examples.x)), digits.examples.y["digit"]
    return Workload(name, x, y, 10, backbone, features)


def _text() -> Workload:
    """Sentences of 5 to 40 random words of two classes, each with a vocabulary of its own."""
    rng = np.random.default_rng(_SEED)
    y = rng.integers(2, size=4096)
    words = rng.integers(1, 5000, size=(4096, 40))
    words -= (words % 2 != y[:, None]) & (words > 1) & (rng.random(words.shape) < 0.3)
    words[np.arange(40) >= rng.integers(5, 41, size=4096)[:, None]] = 0
    backbone = partial(TextBackbone, vocabulary=5000, embedding=32, hidden=64)
    return Workload("text", torch.from_numpy(words), torch.from_numpy(y), 2, backbone, 64)


def _pictures(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    backbone: Callable[[], nn.Module],
    features: int,
) -> Workload:
    """Noise of 1,024 examples around a picture of each class."""
    generator = torch.Generator().manual_seed(_SEED)
    y = torch.randint(classes, (1024,), generator=generator)
    of_class = torch.randn(classes, *shape, generator=generator)
    x = of_class[y] + torch.randn(len(y), *shape, generator=generator)
    return Workload(name, x, y, classes, backbone, features)


def _cifar() -> Workload:
    """As pfl-research's own benchmark has CIFAR-10: 50 images a client, batches of ten."""
    made = _pictures("cifar-cnn", (3, 32, 32), 10, cifar_cnn, 128)
    return replace(made, examples=50, batch=10, rate=0.1)


def _sentences() -> Workload:
    """Sentences of 32 random words of two classes, each with a vocabulary of its own."""
    generator = torch.Generator().manual_seed(_SEED)
    y = torch.randint(2, (1024,), generator=generator)
    x = torch.randint(500, (1024, 32), generator=generator) * 2 + y[:, None]
    return Workload("transformer", x, y, 2, partial(Transformer, 1000, 32), 128)


def _pretrained(name: str, **part: Any) -> Workload:
    """The sentences above for a part of all-MiniLM-L6-v2; all else of it is frozen."""
    path = adapters.config()["model"]["backbone"]["options"]["path"]
    inputs = Inputs(shape=(32,), dtype="int64", pad=0)

    def encoder() -> nn.Module:
        model = hf(inputs, path, **part)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # contestants draw different random numbers
        return model

    return replace(_sentences(), name=name, backbone=encoder, features=384)


def _adapters() -> Workload:
    options = adapters.config()["model"]["backbone"]["options"]["lora"]
    return _pretrained("lora-minilm", lora=Lora(**options))


_IMAGES = Inputs(shape=(64,), dtype="float32")
_DIGITS = Inputs(shape=(1, 28, 28), dtype="float32")

#: name -> how to make it
WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp": lambda: _digits("mlp", partial(mlp, _IMAGES, [128, 64]), 64),
    "cnn": lambda: _digits("cnn", partial(cnn, _IMAGES, [16, 32]), 2 * 2 * 32),
    "text": _text,
    "mnist-cnn": lambda: _pictures(
        "mnist-cnn", (1, 28, 28), 10, partial(cnn, _DIGITS, [16, 32, 64]), 3 * 3 * 64
    ),
    "femnist-cnn": lambda: _pictures("femnist-cnn", (1, 28, 28), 62, femnist_cnn, 512),
    "cifar-cnn": _cifar,
    "resnet8": lambda: _pictures("resnet8", (3, 32, 32), 10, resnet8, 64),
    "frozen-resnet8": lambda: _pictures("frozen-resnet8", (3, 32, 32), 10, frozen_resnet8, 64),
    "resnet18": lambda: _pictures("resnet18", (3, 32, 32), 10, resnet18, 512),
    "transformer": _sentences,
    "lstm": lambda: replace(_sentences(), name="lstm", backbone=partial(Recurrent, 1000)),
    "lora-minilm": _adapters,
    "upper-minilm": lambda: _pretrained("upper-minilm", train=["encoder.layer.5.*"]),
}
