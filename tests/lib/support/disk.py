"""A disk on which every change can be seen before it is done, and can be made to fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

from fedjoint.node.store import StateStore


def watch(monkeypatch, folder: Path, before: Callable[[bool], None]) -> None:
    """Call ``before`` ahead of every change below ``folder``; what it raises is what happens.

    It hears whether the change takes room, which a rename does not.
    """

    def inside(path) -> bool:
        return not isinstance(path, int) and Path(path).absolute().is_relative_to(folder)

    def opened(real):
        def open(file, mode="r", *arguments, **more):
            if set(mode) & set("wax+") and inside(file):
                before(True)
            return real(file, mode, *arguments, **more)

        return open

    def changed(real, is_inside=inside, takes_room=True):
        def change(path, *arguments, **more):
            if is_inside(path):
                before(takes_room)
            return real(path, *arguments, **more)

        return change

    monkeypatch.setattr(builtins, "open", opened(builtins.open))
    monkeypatch.setattr(io, "open", opened(io.open))
    monkeypatch.setattr(os, "fsync", changed(os.fsync, lambda number: True))
    for name in ("mkdir", "touch"):
        monkeypatch.setattr(Path, name, changed(getattr(Path, name)))
    monkeypatch.setattr(Path, "replace", changed(Path.replace, takes_room=False))
    for name in ("write", "settle", "prune", "begin", "note_loaded"):
        real = getattr(StateStore, name)
        monkeypatch.setattr(StateStore, name, changed(real, lambda store: inside(store.path)))


class FullDisk:
    """Fails at the change of this number alone; where ``stays`` is set, at all that take room.

    Attributes:
        reached: whether it has failed.
    """

    def __init__(self, number: int, stays: bool = True) -> None:
        self._left, self._stays, self.reached = number, stays, False

    def __call__(self, takes_room: bool) -> None:
        self._left -= 1
        if self._left == 0 if not self._stays else self._left <= 0 and takes_room:
            self.reached = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
