"""The run directory: what a run was, how it went, and where it can be resumed.

``config.json`` (resolved), ``run.json`` (versions, seed, status), ``metrics.jsonl`` (a record a
round), ``checkpoints/round-000010.safetensors``, ``state.sqlite`` (private state), and at the end
``metrics.csv`` and ``final/backbone.safetensors``. At whatever instant a run is killed, the
directory can be resumed.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedjoint.atomic import write_bytes
from fedjoint.config import Config, check
from fedjoint.errors import UserError

log = logging.getLogger("fedjoint.rundir")

_KEPT = 2  # checkpoints: the newest, and one in case it is damaged
_SCHEMA = "1"


@dataclass(frozen=True)
class Checkpoint:
    """The server's state after a round.

    Attributes:
        round: the round.
        backbone: shared tensors by name.
        state: the strategy's state by name.
    """

    round: int
    backbone: dict[str, Tensor]
    state: dict[str, Tensor]


class RunDir:
    """A run directory; make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, parent: Path, name: str, config: Config) -> RunDir:
        """Make ``parent/name-<time>``, never one that exists."""
        stem, n = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", 1
        path = parent / stem
        while True:
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                n += 1
                path = parent / f"{stem}-{n}"
            except OSError as error:
                raise UserError(f"output.dir {str(parent)!r}: {error.strerror}") from None
        run = cls(path)
        (path / "checkpoints").mkdir()
        write_bytes(path / "run.json", _json(_about(config)))
        write_bytes(path / "config.json", _json(config.model_dump(mode="json")))
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open an existing run directory.

        Raises:
            UserError: it is none.
        """
        for name in ("config.json", "run.json", "checkpoints"):
            if not (path / name).exists():
                raise UserError(f"{path}: not a run directory, it has no {name}")
        return cls(path)

    def config(self) -> Config:
        """Return the run's configuration, checked again."""
        return check(self._read("config.json"), str(self.path / "config.json"))

    @property
    def about(self) -> dict[str, Any]:
        """What ``run.json`` holds."""
        return self._read("run.json")

    @property
    def generation(self) -> int:
        """How often the run was resumed."""
        return int(self.about["generation"])

    def bump_generation(self) -> int:
        """Count a resumption."""
        return self._tell(generation=self.generation + 1)["generation"]

    def mark(self, status: str) -> None:
        """Set the status: running, done or failed."""
        self._tell(status=status)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a round's record to the metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(record), allow_nan=False) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Return the records; a last line cut short by a kill is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text("utf-8").split("\n") if path.exists() else []
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records += [json.loads(line)] if line else []
            except json.JSONDecodeError as error:
                if number == len(lines):
                    break
                raise UserError(f"{path}: line {number}: {error}; restore the file") from None
        return records

    def truncate(self, round: int) -> None:
        """Drop the records of rounds after ``round``, which will be run again."""
        kept = [r for r in self.records() if r["round"] <= round]
        lines = "".join(json.dumps(r, allow_nan=False) + "\n" for r in kept)
        write_bytes(self.path / "metrics.jsonl", lines.encode())

    def checkpoint(
        self, round: int, backbone: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> None:
        """Write the server's state after ``round``, all or nothing; keep the newest two."""
        tensors = {f"backbone/{n}": t for n, t in backbone.items()}
        tensors |= {f"state/{n}": t for n, t in state.items()}
        data = save(
            {n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()},
            {"round": str(round), "schema": _SCHEMA},
        )
        write_bytes(self.path / "checkpoints" / f"round-{round:06d}.safetensors", data)
        for old in self._checkpoints()[_KEPT:]:
            old.unlink()

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that can be read, or None if none was written.

        Raises:
            UserError: there are checkpoints, all of them damaged.
        """
        paths = self._checkpoints()
        for path in paths:
            try:
                return _load(path)
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                log.warning("%s is damaged (%s): trying the one before", path, error)
        if paths:
            raise UserError(f"{self.path}: no checkpoint can be read; restore one or start anew")
        return None

    def finish(self, backbone: Mapping[str, Tensor], records: list[dict[str, Any]]) -> None:
        """Write the final backbone, and the metrics as one table."""
        (self.path / "final").mkdir(exist_ok=True)
        data = save({n: t.detach().cpu().clone().contiguous() for n, t in backbone.items()})
        write_bytes(self.path / "final" / "backbone.safetensors", data)
        rows = [_flat(record) for record in records]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(self.path / "metrics.csv", text.getvalue().encode())

    def backbone(self) -> dict[str, Tensor]:
        """Return the final backbone, or the newest checkpoint's.

        Raises:
            UserError: there is neither.
        """
        path = self.path / "final" / "backbone.safetensors"
        if path.exists():
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = self.latest()
        if found is None:
            raise UserError(f"{self.path}: the run has no checkpoint yet")
        return found.backbone

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("round-*.safetensors"), reverse=True)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / name}: cannot be read: {error}") from None

    def _tell(self, **values: Any) -> dict[str, Any]:
        about = self.about | values
        write_bytes(self.path / "run.json", _json(about))
        return about


def _load(path: Path) -> Checkpoint:
    with safe_open(path, "pt") as file:
        meta = file.metadata() or {}
        if meta.get("schema") != _SCHEMA:
            raise UserError(f"{path}: written by another version of fedjoint")
        parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "state": {}}
        for name in file.keys():  # noqa: SIM118
            kind, _, rest = name.partition("/")
            parts[kind][rest] = file.get_tensor(name)
    return Checkpoint(int(meta["round"]), parts["backbone"], parts["state"])


def _about(config: Config) -> dict[str, Any]:
    names = ("fedjoint", "flwr", "torch", "numpy", "ray")
    versions = {name: version(name) for name in names} | {"python": platform.python_version()}
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return {
        "name": config.name,
        "seed": config.seed,
        "created": created,
        "versions": versions,
        "generation": 0,
        "status": "running",
    }


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(_plain(values), indent=2, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """Return ``value`` with None for every number that JSON cannot write."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            row |= _flat(value, f"{prefix}{name}/")
        elif not isinstance(value, list):
            row[prefix + name] = value
    return row
