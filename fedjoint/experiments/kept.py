"""Runs of a comparison that are trained once: what is finished is read, and not trained again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedjoint.config.own_code import own_code
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.problem import Problem
from fedjoint.runs.files import read_bytes, write_bytes
from fedjoint.runs.plain import plain
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.result import RunResult
from fedjoint.simulation import simulate


class DamagedError(UserError):
    """What was kept of a run is damaged, which is no failure of the run."""


class Kept:
    """Trains runs, and keeps the records of each; models and private state are not kept.

    Two processes may keep into one folder: of a run that both train, one file remains.

    Args:
        folder: for the records. It must be of one data set: that data changed is not noticed here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, config: Config, problem: Problem) -> RunResult:
        """Return the run that ``config`` describes, without its backbone.

        Raises:
            UserError: it cannot be trained.
            DamagedError: what was kept of it is damaged.
        """
        path = self.folder / f"{_key(config, problem)}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="running-", dir=self.folder) as running:
                output = config.output.model_copy(update={"dir": running})
                result = simulate(config.model_copy(update={"output": output}), problem)
            lines = [plain(record.to_json()) for record in result.records]
            write_bytes(path, json.dumps(lines).encode())
        return RunResult(path, config, _read(path), {})


def _read(path: Path) -> list[RoundRecord]:
    try:
        return [RoundRecord.from_json(tree) for tree in json.loads(read_bytes(path))]
    except (ValueError, TypeError, KeyError) as error:
        text = f"{path}: damaged ({error}); delete it, and it is trained anew"
        raise DamagedError(text) from None


def _key(config: Config, problem: Problem) -> str:
    """Return what stands for a run: its settings, the user's own code, and who has which tasks."""
    tree = config.model_dump(mode="json", exclude={"output", "engine"})
    digest = hashlib.blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=12)
    for reference, code in own_code(config).items():
        digest.update(f"{reference} {code}".encode())
    digest.update(repr([task.name for task in problem.tasks]).encode())
    digest.update(np.ascontiguousarray(problem.data.sizes, np.int64).tobytes())
    digest.update(np.packbits(problem.data.tasks).tobytes())
    return digest.hexdigest()
