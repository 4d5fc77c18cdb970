"""The next character of a text: of questions, of phrases, and of film reviews.

    FEDJOINT_DATA=~/data fedjoint compare letters

It takes the files of :mod:`fedjoint.simulations.text` without their labels. Each kind of text is a
task: they have an alphabet and many words in common, and are written differently. A third of the
clients has each. The backbone is a perceptron that reads the last eight characters (Bengio et al.,
"A Neural Probabilistic Language Model", JMLR 2003, where they are words), so that it is causal.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedjoint
from fedjoint.data.files import find, read_text
from fedjoint.options import Count

from ._data import files
from ._parts import dataset
from ._script import progress, script, show

#: task -> its files, of which a second one is its test set
TEXTS = {
    "questions": ("TREC.train.all", "TREC.test.all"),
    "phrases": ("mpqa.all",),
    "reviews": ("rt-polarity.all",),
}

#: 0 is padding; what else a line holds is one more character.
ALPHABET = "abcdefghijklmnopqrstuvwxyz '.,?0"
SYMBOLS = len(ALPHABET) + 2


class Letters(fedjoint.Source):
    """The first characters of every line. Of lines that begin alike the first is kept.

    Args:
        length: characters.
    """

    def __init__(self, length: Count = 48) -> None:
        self.length = length

    def load(self, data: fedjoint.DataConfig) -> fedjoint.Dataset:
        """Read the lines; ``x`` is ``[n, length]`` int64.

        Raises:
            UserError: a file is not there.
        """
        tasks = tuple(
            fedjoint.Task(name, "language", SYMBOLS, size=(self.length,)) for name in TEXTS
        )
        parts = []
        for name, own in TEXTS.items():
            seen: set[str] = set()
            for file in reversed(own):  # a test set keeps what a training set has, too
                (path,) = find(files(file))
                lines = [line[: self.length] for line in _lines(path)]
                fresh = [line for line in dict.fromkeys(lines) if line not in seen]
                seen.update(fresh)
                x = _ids(fresh, self.length)
                y = {name: fedjoint.next_tokens(x, padding=0)}
                parts.append((x, y, file.endswith("test.all")))
        return dataset(tasks, parts)


@cache
def _lines(path: Path) -> list[str]:
    sentences = (line.partition(" ")[2].lower() for line in read_text(path, None).splitlines())
    return [re.sub(r"\d", "0", line.strip()) for line in sentences if line.strip()]


def _ids(lines: list[str], length: int) -> Tensor:
    number = {c: place for place, c in enumerate("\0" + ALPHABET)}
    rows = [[number.get(c, SYMBOLS - 1) for c in line.ljust(length, "\0")] for line in lines]
    return torch.tensor(rows, dtype=torch.int64).view(len(rows), length)


class Window(nn.Module):
    """Features of each place, from the characters up to it: ``[n, length] -> [n, length, hidden]``.

    Args:
        embedding: size of a character's.
        context: characters that are read.
        hidden: size of both layers.
    """

    def __init__(self, embedding: int, context: int, hidden: int) -> None:
        super().__init__()
        self.context = context
        self.symbols = nn.Embedding(SYMBOLS, embedding)
        self.layers = nn.Sequential(
            nn.Linear(context * embedding, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        known = F.pad(self.symbols(x), (0, 0, self.context - 1, 0))
        places = [known[:, start : start + length] for start in range(self.context)]
        return self.layers(torch.cat(places, 2))


def window(
    inputs: fedjoint.Inputs,  # noqa: ARG001 - a backbone is told of its inputs
    embedding: Count = 16,
    context: Count = 8,
    hidden: Count = 64,
) -> nn.Module:
    """Return the backbone; see :class:`Window`."""
    return Window(embedding, context, hidden)


def config() -> dict[str, Any]:
    """Return the scenario."""
    return {
        "name": "letters",
        "rounds": 30,
        "data": {
            "source": {"name": "fedjoint.simulations.letters:Letters"},
            "clients": 24,
            "partition": "one_task",
            "examples_per_client": 50,
        },
        "model": {"backbone": {"name": "fedjoint.simulations.letters:window"}},
        "local": {"epochs": 1, "batch_size": 16, "optimiser": {"name": "adam", "lr": 0.003}},
        "strategy": {"name": "fedavg", "weight_by": "task"},
        "evaluate": {"every": 2},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
