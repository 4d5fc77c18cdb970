"""The run directory: configuration, metrics, checkpoints and the final backbone."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.registry import anchored
from fedjoint.runs.files import write_bytes, write_csv
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.tensors import DamagedError, pack, unpack

log = logging.getLogger(__name__)

_SCHEMA = "2"
_KEPT = 2  # checkpoints: the newest, and one in case that is damaged
_PACKAGES = ("fedjoint", "flwr", "torch", "numpy", "ray")


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``round`` rounds.

    Attributes:
        round: rounds done.
        backbone: the shared tensors.
        state: the strategy's state.
        ledger: which round of each client counts.
    """

    round: int
    backbone: dict[str, Tensor]
    state: dict[str, Tensor]
    ledger: Ledger


class RunDir:
    """A run's directory; made by :meth:`create`, found again by :meth:`open`.

    One process writes to it at a time; any number may read. Layout::

        config.json                           the whole configuration
        run.json                              versions, seed, created, generation, status
        metrics.jsonl                         one record per round
        nodes.json                            the nodes, when last heard of
        checkpoints/round-000010.safetensors  the newest two
        state.sqlite                          the clients' private state (simulation)
        final/backbone.safetensors            when the run is done
        metrics.csv                           when the run is done

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, parent: Path, name: str, config: Config, *, own_problem: bool = False
    ) -> RunDir:
        """Make ``<parent>/<name>-<date>-<time>``; an existing directory is never used.

        ``own_problem`` says that the configuration does not describe the run's problem.

        What the server reads beside the run is written with its whole path, as the run may be
        resumed from another folder.

        Raises:
            UserError: the directory cannot be made.
        """
        run = cls(new_folder(parent, name))
        run._checkpoints.mkdir()
        run._metrics.touch()
        # A limit may be infinite: written as Infinity, which is Python's JSON, not everyone's.
        tree = config.model_dump()
        tree["strategy"]["name"] = anchored(config.strategy.name)
        if reference := config.diagnostics.reference:
            tree["diagnostics"]["reference"] = str(Path(reference).resolve())
        if initial := config.model.initial:
            tree["model"]["initial"] = str(Path(initial).resolve())
        _write_json(run._config, _plain(tree, nonfinite=float), allow_nan=True)
        _write_json(
            run._info,
            {
                "versions": {**{p: _version(p) for p in _PACKAGES}, "python": _python()},
                "seed": config.seed,
                "created": datetime.now().astimezone().isoformat(timespec="seconds"),
                "generation": 0,
                "status": "created",
                "own_problem": own_problem,
            },
        )
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Return the run in ``path``.

        Raises:
            UserError: ``path`` is no run directory.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise UserError(f"{path}: no such folder; give a run directory")
        for file in (run._config, run._info):
            if not file.is_file():
                raise UserError(f"{path}: not a run directory: {file.name} is missing")
        return run

    @property
    def state(self) -> Path:
        """The file of the clients' private state, for :class:`fedjoint.node.store.StateStore`."""
        return self.path / "state.sqlite"

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json: versions, seed, created, generation and status.

        Once the run has begun, also ``method``, its local method.

        Raises:
            UserError: the file is damaged.
        """
        info = _read_json(self._info)
        if type(info.get("generation")) is not int or not isinstance(info.get("status"), str):
            raise UserError(
                f"{self._info}: damaged: no generation or no status; restore it from a backup"
            )
        return info

    @property
    def generation(self) -> int:
        """How often the run was resumed."""
        return int(self.info["generation"])

    def config(self) -> Config:
        """Return the run's configuration.

        Raises:
            UserError: the file is damaged, or this version refuses it.
        """
        return check(_read_json(self._config), str(self._config))

    def described(self, problem: object | None) -> None:
        """Make sure that the run's problem is known.

        Args:
            problem: the one at hand; None where there is only the run's configuration.

        Raises:
            UserError: there is none, and the configuration does not describe it.
        """
        if self.info.get("own_problem") and problem is None:
            raise UserError(
                f"{self.path}: its problem was passed from Python; do this from Python, too, with "
                "the argument problem"
            )

    def mark(self, status: Literal["running", "done", "stopped", "failed"], **details: Any) -> None:
        """Note how the run is doing, and ``details`` of it."""
        _write_json(self._info, {**self.info, "status": status, **details})

    def write_nodes(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Replace what is known of the nodes, see :meth:`fedjoint.server.roster.Roster.report`."""
        # Every round: not worth waiting for the disk.
        _write_json(self._nodes, {"time": time.time(), "nodes": list(nodes)}, durable=False)

    def nodes(self) -> list[dict[str, Any]]:
        """Return what was last written of the nodes.

        Raises:
            UserError: the file is damaged.
        """
        if not self._nodes.exists():
            return []
        nodes = _read_json(self._nodes).get("nodes")
        if not isinstance(nodes, list) or not all(
            isinstance(node, dict) and {"node", "name", "state"} <= node.keys() for node in nodes
        ):
            raise UserError(f"{self._nodes}: damaged: no list of nodes; delete it")
        return nodes

    def last_news(self) -> float | None:
        """Return when the server last gave a sign of life, seconds since 1970; None: never.

        Raises:
            UserError: the file is damaged.
        """
        when = _read_json(self._nodes).get("time") if self._nodes.exists() else None
        return float(when) if isinstance(when, int | float) else None

    def bump_generation(self) -> int:
        """Count a resume; return how many there have been, this one included."""
        info = self.info
        info["generation"] += 1
        _write_json(self._info, info)
        return info["generation"]

    def append(self, record: RoundRecord) -> None:
        """Add a round's record to metrics.jsonl; NaN and infinite numbers become null.

        The next checkpoint makes it durable. After a crash, :meth:`truncate` first.
        """
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(record.to_json()), allow_nan=False) + "\n")

    def records(self) -> list[RoundRecord]:
        """Return the rounds' records; a last line that a crash left unfinished is dropped.

        Raises:
            UserError: another line is damaged.
        """
        records: list[RoundRecord] = []
        text = self._metrics.read_text("utf-8", errors="replace") if self._metrics.exists() else ""
        *lines, _unfinished = text.split("\n")
        for number, line in enumerate(lines, 1):
            try:
                records.append(RoundRecord.from_json(json.loads(line)))
            except ValueError as error:
                why = error if isinstance(error, UserError) else "it is not JSON"
                raise UserError(
                    f"{self._metrics}:{number}: {why}; delete the lines from there on and resume"
                ) from None
        return records

    @property
    def written(self) -> int:
        """Bytes of metrics written so far."""
        return self._metrics.stat().st_size if self._metrics.exists() else 0

    def truncate(self, round: int) -> None:
        """Keep the records of rounds up to ``round`` alone."""
        kept = [record.to_json() for record in self.records() if record.round <= round]
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in kept]
        write_bytes(self._metrics, "".join(lines).encode())

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Save what a resume needs beside the clients' state; keep the newest two."""
        with self._metrics.open("ab") as file:
            os.fsync(file.fileno())
        path = self._checkpoints / f"round-{checkpoint.round:06d}.safetensors"
        tensors = {f"backbone/{n}": t for n, t in checkpoint.backbone.items()}
        tensors |= {f"state/{n}": t for n, t in checkpoint.state.items()}
        tensors |= {f"ledger/{n}": t for n, t in checkpoint.ledger.tensors().items()}
        write_bytes(path, pack(tensors, {"round": str(checkpoint.round), "schema": _SCHEMA}))
        kept = self._saved()[:_KEPT]
        for other in self._checkpoints.iterdir():  # and what a killed writer left
            if other not in kept:
                other.unlink()

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, or None if none was ever saved.

        Raises:
            UserError: there are checkpoints, but none is whole.
        """
        saved = self._saved()
        for path in saved:
            try:
                return _load(path)
            except DamagedError as error:
                log.warning("%s: skipped: %s", path, error)
        if saved:
            raise UserError(f"{self._checkpoints}: no checkpoint is whole; start a new run")
        return None

    def finish(
        self, round: int, backbone: Mapping[str, Tensor], records: Sequence[RoundRecord]
    ) -> None:
        """Write the final backbone and metrics.csv.

        Nested tables of a record become columns ``a/b``; lists are left out.

        Args:
            round: rounds done.
            backbone: the shared tensors.
            records: the rounds' records.
        """
        self._final.parent.mkdir(exist_ok=True)
        tensors = {f"backbone/{n}": t for n, t in backbone.items()}
        write_bytes(self._final, pack(tensors, {"round": str(round), "schema": _SCHEMA}))
        rows = [_flat(_plain(record.to_json())) for record in records]
        write_csv(rows, self.path / "metrics.csv")

    def backbone(self) -> Checkpoint:
        """Return the newest backbone, final or of a checkpoint (final: without state).

        Raises:
            UserError: there is none that is whole.
        """
        found = self.latest()
        if self._final.exists():
            try:
                final = _load(self._final)
            except DamagedError as error:
                raise UserError(f"{self._final}: {error}; delete it and resume the run") from None
            if found is None or final.round >= found.round:
                return final
        if found is None:
            raise UserError(f"{self.path}: the run has no checkpoint yet")
        return found

    @property
    def _config(self) -> Path:
        return self.path / "config.json"

    @property
    def _info(self) -> Path:
        return self.path / "run.json"

    @property
    def _nodes(self) -> Path:
        return self.path / "nodes.json"

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def _final(self) -> Path:
        return self.path / "final" / "backbone.safetensors"

    def _saved(self) -> list[Path]:
        """Return the checkpoints' files, the newest first."""
        return sorted(self._checkpoints.glob("round-*.safetensors"), key=_round_of, reverse=True)


def _round_of(path: Path) -> int:
    number = path.stem.removeprefix("round-")
    return int(number) if number.isdecimal() else -1


def new_folder(parent: Path, name: str) -> Path:
    """Make ``<parent>/<name>-<date>-<time>``, or one with a number after it where that exists.

    Raises:
        UserError: the folder cannot be made.
    """
    if not name or Path(name).name != name:
        raise UserError(f"name = {name!r} cannot name a folder; use letters, digits and dashes")
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    number, path = 1, parent / stem
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not parent.is_dir():
                raise UserError(f"{parent}: not a folder; set output.dir") from None
            number += 1
            path = parent / f"{stem}-{number}"
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; set output.dir") from None


def _load(path: Path) -> Checkpoint:
    tensors, metadata = unpack(path.read_bytes())
    if metadata.get("schema") != _SCHEMA:
        raise DamagedError(f"schema {metadata.get('schema')!r}, expected {_SCHEMA!r}")
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "state": {}, "ledger": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    ledger = Ledger.from_tensors(parts["ledger"]) if parts["ledger"] else Ledger()
    return Checkpoint(int(metadata["round"]), parts["backbone"], parts["state"], ledger)


def _plain(value: Any, nonfinite: Any = lambda number: None) -> Any:
    """Return ``value`` in the types of JSON, numbers that are not finite as ``nonfinite`` says."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, nonfinite) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic | Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        if all(type(item) is int for item in value):  # the ids of very many clients
            return list(value)
        return [_plain(item, nonfinite) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return nonfinite(value)
    return value


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            row |= _flat(value, f"{prefix}{name}/")
        elif not isinstance(value, list):
            row[prefix + name] = value
    return row


def _write_json(path: Path, value: Any, allow_nan: bool = False, durable: bool = True) -> None:
    text = json.dumps(value, indent=2, allow_nan=allow_nan) + "\n"
    write_bytes(path, text.encode(), durable=durable)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged: {error}; restore it from a backup") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged: not a table; restore it from a backup")
    return value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder that was never installed
        return None


def _python() -> str:
    return platform.python_version()
