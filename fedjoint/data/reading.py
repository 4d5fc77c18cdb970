"""One line about what was read: nothing of a user's file goes unused without a word."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedjoint.data.dataset import TEST, TRAIN, VALID, Dataset
from fedjoint.model.positions import is_known

log = logging.getLogger("fedjoint.data")

_MOST = 12  # names in a list
_said: set[str] = set()


def say(
    files: Sequence[Path],
    dataset: Dataset,
    *,
    inputs: str,
    left_out: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Log what was read, once in a process.

    It is a warning where something was left out or guessed, else information.

    Args:
        files: that were read.
        dataset: what came of them.
        inputs: what an example's inputs are, in words.
        left_out: what of the files is not in it -> why not.
        notes: what else was guessed or left out.
    """
    counts = [len(dataset.rows(split)) for split in (TRAIN, VALID, TEST)]
    sizes = f"{sum(counts)} examples"
    if counts[VALID] or counts[TEST]:
        named = [
            f"{n} {w}" for n, w in zip(counts, ("training", "validation", "test"), strict=True)
        ]
        sizes += f" ({', '.join(n for n, count in zip(named, counts, strict=True) if count)})"
    parts = [
        f"read {listed([path.name for path in files])}: {sizes}",
        f"inputs {inputs}",
        f"tasks {', '.join(_task(dataset, k) for k in range(len(dataset.tasks)))}",
    ]
    if dataset.owner is not None:
        parts.append(f"{len(np.unique(dataset.owner))} clients")
    notes = [*notes, *_strangers(dataset)]
    if left_out:
        parts.append("left out " + listed([f"{name!r} ({why})" for name, why in left_out.items()]))
    line = " ".join("; ".join([*parts, *notes]).split())  # a column's name may hold a line end
    key = f"{[str(path) for path in files]} {line}"
    if key not in _said:
        _said.add(key)
        log.log(logging.WARNING if left_out or notes else logging.INFO, "%s", line)


def listed(names: Sequence[str]) -> str:
    """Return names with commas between; of many, the first and how many more."""
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _task(dataset: Dataset, number: int) -> str:
    task = dataset.tasks[number]
    known = is_known(dataset.examples.y[task.name])
    text = f"{task.name} ({task.outputs} {task.form.counts}"
    lacking = 0 if dataset.origin is not None else int((~known).sum())
    return text + (f", {lacking} missing)" if lacking else ")")


def _strangers(dataset: Dataset) -> Iterator[str]:
    """Say which classes are in a test set alone: its files may be those of another data set."""
    for task in dataset.tasks if dataset.split is not None else ():
        y = dataset.examples.y[task.name]
        if task.kind == "multiclass":
            train, test = (y[dataset.rows(split)].unique() for split in (TRAIN, TEST))
            alone = sorted(set(test.tolist()) - set(train.tolist()) - {-1})
            if alone:
                numbers = listed([str(number) for number in alone])
                yield f"of {task.name}, no training example has the class {numbers} of its test set"
