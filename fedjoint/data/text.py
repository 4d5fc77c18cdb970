"""Sentences with a class each, one ``label sentence`` per line."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import Examples
from fedjoint.data.config import DataConfig
from fedjoint.data.dataset import Dataset
from fedjoint.data.files import find, read_text
from fedjoint.data.labels import read_labels
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task


def encode(sentences: Iterable[str], max_length: int, vocabulary: int) -> Tensor:
    """Hash words to ids, ``[n, max_length]`` int64; id 0 pads.

    A word's id depends on the word alone, so clients agree on it without sharing a vocabulary.

    Args:
        sentences: words with white space between; upper and lower case are the same.
        max_length: words kept.
        vocabulary: number of ids, padding included.
    """

    @cache
    def word_id(word: str) -> int:
        return 1 + zlib.crc32(word.encode("utf-8", "surrogatepass")) % (vocabulary - 1)

    rows = [[word_id(w) for w in s.lower().split()[:max_length]] for s in sentences]
    ids = np.zeros((len(rows), max_length), np.int64)
    for row, words in zip(ids, rows, strict=True):
        row[: len(words)] = words
    return torch.from_numpy(ids)


def load(config: DataConfig) -> Dataset:
    """Load one classification task per file; ``x`` is ``[n, max_length]`` int64 word ids.

    A task is named by its file up to the first dot, and files of one name are one task. Each
    task has its own examples: those of the others have no label for it.

    Of lines of one task with the same words the first is kept, whatever the labels of the others:
    no sentence is in two splits or with two clients.

    Raises:
        UserError: a file is missing, empty or malformed.
    """
    tasks: list[Task] = []
    inputs, labels = [], []
    for name, lines in read(config).items():
        task, own = read_labels(
            name,
            "multiclass",
            [label for label, _, _ in lines],
            [place for _, _, place in lines].__getitem__,
            config.outputs.get(name),
        )
        # All labels are read before: a class of repeated sentences alone is a class still.
        kept = _first([sentence for _, sentence, _ in lines])
        tasks.append(task)
        labels.append(own[kept])
        inputs.append(encode((lines[i][1] for i in kept), config.max_length, config.vocabulary))
    count = [len(own) for own in labels]
    y = {task.name: task.missing(sum(count)) for task in tasks}
    for task, own, stop in zip(tasks, labels, np.cumsum(count), strict=True):
        y[task.name][stop - len(own) : stop] = own
    origin = np.repeat(np.arange(len(tasks)), count)
    return Dataset(tuple(tasks), Examples(torch.cat(inputs), y), origin)


def _first(sentences: Iterable[str]) -> list[int]:
    """Return where each sentence, as a list of words, occurs first."""
    places: dict[tuple[str, ...], int] = {}
    for place, sentence in enumerate(sentences):
        places.setdefault(tuple(sentence.lower().split()), place)
    return list(places.values())


def read(config: DataConfig) -> dict[str, list[tuple[str, str, str]]]:
    """Return the (label, sentence, file:line) of each line, by task.

    Raises:
        UserError: a file is missing, empty or malformed.
    """
    tasks: dict[str, list[tuple[str, str, str]]] = {}
    for path in find(config.path or ""):
        name = path.name.partition(".")[0]
        tasks.setdefault(name, []).extend(_lines(path, config.encoding))
    return tasks


def _lines(path: Path, encoding: str | None) -> list[tuple[str, str, str]]:
    """Return (label, sentence, file:line) of each line."""
    # Not splitlines: Latin-1 sentences may hold other characters that it takes for line ends.
    text = read_text(path, encoding).removesuffix("\n")
    if not text:
        raise UserError(f"{path}: the file is empty; write one `label sentence` per line")
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        label, space, sentence = line.rstrip("\r").partition(" ")
        if not label or not space:
            raise UserError(f"{path}:{number}: {line[:40]!r} is not a `label sentence` line")
        if label.split() != [label]:
            raise UserError(
                f"{path}:{number}: label {label[:40]!r} holds white space; write one space between "
                "label and sentence"
            )
        lines.append((label, sentence, f"{path}:{number}"))
    return lines
