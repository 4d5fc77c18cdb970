"""Sentences with a class each, one ``label sentence`` per line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.files import find, read_text
from fedjoint.data.labels import class_names, read_labels
from fedjoint.data.source import Source
from fedjoint.data.text import Vocabulary, encode
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs, Words
from fedjoint.model.tasks import Task
from fedjoint.options import Count


class Text(Source):
    """Sentences with a class each, one ``label sentence`` per line, a task per file.

    Args:
        path: a file, a folder of files, or a list of files. Those whose names agree up to the
            first dot are one task, named by that part.
        encoding: of the files; by default UTF-8, and Latin-1 where that fails.
        max_length: words kept of a sentence.
        vocabulary: hash buckets of words, and padding.
    """

    def __init__(
        self,
        path: str | list[str],
        encoding: str | None = None,
        max_length: Count = 40,
        vocabulary: Vocabulary = 4096,
    ) -> None:
        self.path = path
        self.encoding = encoding
        self.max_length = max_length
        self.vocabulary = vocabulary

    def load(self, data: DataConfig) -> Dataset:
        """Load one classification task per file; ``x`` is ``[n, max_length]`` int64 word ids.

        A task is named by its file up to the first dot, and files of one name are one task. Each
        task has its own examples: those of the others have no label for it.

        Of lines of one task with the same words the first is kept, whatever the labels of the
        others: no sentence is in two splits or with two clients.

        Raises:
            UserError: a file is missing, empty or malformed.
        """
        tasks: list[Task] = []
        inputs, labels = [], []
        for name, lines in self._lines_by_task().items():
            task, own = read_labels(
                name,
                "multiclass",
                [label for label, _, _ in lines],
                [place for _, _, place in lines].__getitem__,
                data.outputs.get(name),
            )
            # All labels are read before: a class of repeated sentences alone is a class still.
            kept = _first([sentence for _, sentence, _ in lines])
            tasks.append(task)
            labels.append(own[kept])
            inputs.append(encode((lines[i][1] for i in kept), self.max_length, self.vocabulary))
        count = [len(own) for own in labels]
        y = {task.name: task.missing(sum(count)) for task in tasks}
        for task, own, stop in zip(tasks, labels, np.cumsum(count), strict=True):
            y[task.name][stop - len(own) : stop] = own
        origin = np.repeat(np.arange(len(tasks)), count)
        return Dataset(tuple(tasks), Examples(torch.cat(inputs), y), origin)

    def inputs(self, example: Tensor) -> Inputs:
        words = Words(max_length=self.max_length, vocabulary=self.vocabulary)
        return super().inputs(example).model_copy(update={"words": words})

    def class_names(self, task: Task) -> list[str] | None:
        return class_names([label for label, _, _ in self._lines_by_task()[task.name]])

    def _lines_by_task(self) -> dict[str, list[tuple[str, str, str]]]:
        """Return the (label, sentence, file:line) of each line, by task."""
        tasks: dict[str, list[tuple[str, str, str]]] = {}
        for path in find(self.path):
            name = path.name.partition(".")[0]
            tasks.setdefault(name, []).extend(_lines(path, self.encoding))
        return tasks


def _first(sentences: Iterable[str]) -> list[int]:
    """Return where each sentence, as a list of words, occurs first."""
    places: dict[tuple[str, ...], int] = {}
    for place, sentence in enumerate(sentences):
        places.setdefault(tuple(sentence.lower().split()), place)
    return list(places.values())


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
