"""Files -> tasks: which files of sentences belong together, and what their task is called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedjoint.data.files import Paths, find
from fedjoint.data.official import WORDS, find_split, split_in, splits_of
from fedjoint.errors import UserError

#: endings that say nothing about what is in a file
_ENDINGS = ("all", "data", "tsv", "txt")

#: paths, or a task's name -> its paths
Named = Paths | dict[str, Paths]

Files = list[tuple[Path, int]]


def task_files(path: Named, test_path: Named | None) -> dict[str, Files]:
    """Return the files of each task, each with its split.

    Without names for the tasks, files of one folder whose names differ only in the split that
    they name are one task, which is called by the rest of their names.

    Args:
        path: files and folders, or task -> files and folders.
        test_path: those of the tasks' test sets, in the same way.

    Raises:
        UserError: a file is not there, two that are not of one task have one name, or a test set
            belongs to no task.
    """
    if isinstance(path, Mapping):
        return _named(path, test_path)
    tasks = _by_name(find(path))
    if test_path is None:
        return {task: _split(files) for task, files in tasks.items()}
    if isinstance(test_path, Mapping):
        tests = {task: find(place, "test_path") for task, place in test_path.items()}
    else:
        tests = _by_name(find(test_path, "test_path"))
        if len(tests) == len(tasks) == 1:
            tests = dict(zip(tasks, tests.values(), strict=True))
    _check(tasks, tests)
    return {task: _with_test(files, tests.get(task)) for task, files in tasks.items()}


def _named(path: Mapping[str, Paths], test_path: Named | None) -> dict[str, Files]:
    if not path:
        raise UserError("data.source.options.path names no task")
    if test_path is not None and not isinstance(test_path, Mapping):
        raise UserError(
            "data.source.options.path names the tasks, so test_path has to: write {task = files}"
        )
    tests = dict(test_path or {})
    _check(path, tests)
    return {task: find_split(place, tests.get(task)) for task, place in path.items()}


def _check(tasks: Mapping[str, object], tests: Mapping[str, object]) -> None:
    strangers = sorted(tests.keys() - tasks.keys())
    if strangers:
        raise UserError(
            f"data.source.options.test_path has a test set of {strangers[0]!r}, and the tasks are "
            f"{', '.join(sorted(tasks))}; name the tasks: path = {{task = files}}, and test_path"
        )


def _split(files: Sequence[Path]) -> Files:
    return list(zip(files, splits_of(files), strict=True))


def _with_test(files: Sequence[Path], tests: Sequence[Path] | None) -> Files:
    if tests is None:
        return _split(files)
    return find_split([str(f) for f in files], [str(f) for f in tests])


def _by_name(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each task by their names."""
    tasks: dict[str, list[Path]] = {}
    for path in paths:
        name, split = _name(path), split_in(path.name)
        for other in tasks.setdefault(name, []):
            parted = split is not None and split_in(other.name) not in (None, split)
            if not parted or path.parent.resolve() != other.parent.resolve():
                raise UserError(
                    f"{path} and {other} would both be the task {name!r}; name the tasks of your "
                    "files by data.source.options.path = {task = [files]}"
                )
        tasks[name].append(path)
    return tasks


def _name(path: Path) -> str:
    """Return a file's name without its split and its ending; else its folder's name."""
    words = re.split(r"([._-])", path.name)
    kept: list[str] = []
    for word, mark in zip(words[::2], ["", *words[1::2]], strict=True):
        if word.lower() in WORDS:
            continue
        kept += [mark.replace(".", "_"), word] if kept else [word]
    while kept and kept[-1].lower() in _ENDINGS:
        kept = kept[:-2]
    return "".join(kept) or path.resolve().parent.name
