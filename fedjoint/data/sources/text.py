"""Sentences with a class each, one ``label sentence`` per line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import TEST, Dataset
from fedjoint.data.files import read_guessed, read_text, refuse_repeats
from fedjoint.data.labels import class_names, read_labels
from fedjoint.data.reading import listed, say
from fedjoint.data.source import Source
from fedjoint.data.task_files import Named, task_files
from fedjoint.data.text import Vocabulary, as_ids
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs, Words
from fedjoint.model.pretrained.tokenizer import words_of
from fedjoint.model.tasks import Task
from fedjoint.options import Count

_BUCKETS = 4096


class Text(Source):
    """Sentences with a class each, one ``label sentence`` per line, a task per file.

    Args:
        path: a file, a folder of files, or a list of files, of which those of one folder whose
            names differ only in ``train`` and ``test`` are one task; or a table with such a path
            for each task, by its name.
        encoding: of the files; by default UTF-8, and Latin-1 where that fails.
        missing: words that mean a missing label, such as NA, where a line has none.
        test_path: files of test sets, as ``path``; by default those of ``path`` that are one by
            their names.
        max_length: words kept of a sentence, or tokens.
        vocabulary: hash buckets of words, and padding; default: 4096.
        tokenizer: in place of hashing: that of a pretrained model, its folder or name on the hub.
        keep_repeats: keep lines that repeat another of their task, or one of its test set, as
            published results do: a test example may then have been trained on.

    Raises:
        UserError: both a vocabulary and a tokenizer are given.
    """

    def __init__(
        self,
        path: Named,
        encoding: str | None = None,
        missing: list[str] | None = None,
        test_path: Named | None = None,
        max_length: Count = 40,
        vocabulary: Vocabulary | None = None,
        tokenizer: str | None = None,
        keep_repeats: bool = False,
    ) -> None:
        if tokenizer is not None and vocabulary is not None:
            raise UserError("a tokenizer has its own vocabulary: leave out vocabulary")
        self.path = path
        self.encoding = encoding
        self.missing = missing
        self.test_path = test_path
        self.max_length = max_length
        self.vocabulary = vocabulary or _BUCKETS
        self.tokenizer = tokenizer
        self.keep_repeats = keep_repeats

    def load(self, data: DataConfig) -> Dataset:
        """Load one classification task per file; ``x`` is ``[n, max_length]`` int64 word ids.

        Each task has its own examples: those of the others have no label for it. A task's test
        set is kept as it is, and what it holds is left out of training. Of other lines of one task
        with the same words the first is kept, whatever the labels of the others: no sentence is
        in two splits or with two clients, unless ``keep_repeats``. Lines without words are left
        out.

        Raises:
            UserError: a file is missing, empty or malformed, or two would be one task by mistake.
        """
        tasks: list[Task] = []
        inputs, labels, splits, left_out = [], [], [], Counter[str]()
        for name, lines in self._lines.items():
            task, own = read_labels(
                name,
                "multiclass",
                [line.label for line in lines],
                lambda i, lines=lines: lines[i].place,  # type: ignore[misc]
                data.outputs.get(name),
                self.missing,
            )
            # All labels are read before: a class of repeated sentences alone is a class still.
            kept = _kept(lines, left_out, self.keep_repeats)
            tasks.append(task)
            labels.append(own[kept])
            splits.append(np.array([lines[i].split for i in kept], np.int64))
            inputs.append(as_ids([lines[i].words for i in kept], self._words))
        count = [len(own) for own in labels]
        y = {task.name: task.missing(sum(count)) for task in tasks}
        for task, own, stop in zip(tasks, labels, np.cumsum(count), strict=True):
            y[task.name][stop - len(own) : stop] = own
        split = np.concatenate(splits)
        dataset = Dataset(
            tuple(tasks),
            Examples(torch.cat(inputs), y),
            np.repeat(np.arange(len(tasks)), count),
            split=split if split.any() else None,
            legend=self.legend(tasks),
        )
        units = "tokens" if self.tokenizer else "words"
        say(
            [file for files in self._files.values() for file, _ in files],
            dataset,
            inputs=f"the first {self.max_length} {units} of a line",
            notes=[*self._notes, *(f"left out {n} {why}" for why, n in left_out.items())],
        )
        return dataset

    def inputs(self, example: Tensor) -> Inputs:
        return super().inputs(example).model_copy(update={"words": self._words})

    def options_to_read(self, inputs: Inputs, named: Collection[str]) -> dict[str, Any]:
        words = inputs.words
        if words is None:
            return {}
        own: dict[str, Any] = {"tokenizer": words.tokenizer}
        if words.tokenizer is None:
            own = {"vocabulary": words.vocabulary}
        free = not {"tokenizer", "vocabulary"} & set(named)  # one takes the other's place
        found = {"max_length": words.max_length} | (own if free else {})
        return {name: value for name, value in found.items() if name not in named}

    def class_names(self, task: Task) -> list[str] | None:
        return class_names([line.label for line in self._lines[task.name]], self.missing)

    @cached_property
    def _words(self) -> Words:
        if self.tokenizer is not None:
            return words_of(self.tokenizer, self.max_length)
        return Words(max_length=self.max_length, vocabulary=self.vocabulary)

    @cached_property
    def _files(self) -> dict[str, list[tuple[Path, int]]]:
        tasks = task_files(self.path, self.test_path)
        refuse_repeats(file for files in tasks.values() for file, _ in files)
        return tasks

    @property
    def _notes(self) -> list[str]:
        files = [file for own in self._files.values() for file, _ in own]
        guessed = [file.name for file in files if read_guessed(file, self.encoding)[1]]
        return [f"{listed(guessed)} read as Latin-1, as it is not UTF-8"] if guessed else []

    @cached_property
    def _lines(self) -> dict[str, list[Line]]:
        """The lines of each task."""
        return {
            task: [line for file, split in files for line in _read(file, split, self.encoding)]
            for task, files in self._files.items()
        }


@dataclass(frozen=True)
class Line:
    """A line of a file.

    Attributes:
        label: a class.
        words: the sentence.
        place: file:line.
        split: of the file.
    """

    label: str
    words: str
    place: str
    split: int


def _kept(lines: Sequence[Line], left_out: Counter[str], keep_repeats: bool) -> list[int]:
    """Return the lines that are kept, in order; count the others by why they are not."""
    sentences = [tuple(line.words.lower().split()) for line in lines]
    tests = {own for own, line in zip(sentences, lines, strict=True) if line.split == TEST}
    seen: set[tuple[str, ...]] = set()
    kept = []
    for place, (own, line) in enumerate(zip(sentences, lines, strict=True)):
        if not own:
            left_out["lines without words"] += 1
        elif keep_repeats or line.split == TEST:
            kept.append(place)
        elif own in tests:
            left_out["lines that the test set holds"] += 1
        elif own in seen:
            left_out["lines that repeat another"] += 1
        else:
            seen.add(own)
            kept.append(place)
    return kept


def _read(path: Path, split: int, encoding: str | None) -> list[Line]:
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
        lines.append(Line(label, sentence, f"{path}:{number}", split))
    return lines
