"""The run directory: configuration, metrics, checkpoints and the final backbone."""

from __future__ import annotations

import logging
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.registry import anchored
from fedjoint.runs.checkpoints import Checkpoint, load_checkpoint, pack_checkpoint
from fedjoint.runs.files import write_bytes, write_files, writing
from fedjoint.runs.metrics import MetricsFile, as_csv
from fedjoint.runs.plain import plain
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.seal import read_sealed, write_sealed
from fedjoint.runs.states import States
from fedjoint.runs.tensors import DamagedError

log = logging.getLogger(__name__)

_NODES = threading.Lock()  # a round and the run's heartbeat both write what is known of nodes
_KEPT = 2  # checkpoints: the newest, and one in case that is damaged
_FINAL = "final/backbone.safetensors"
_BEST = "best/backbone.safetensors"
_PACKAGES = ("fedjoint", "flwr", "torch", "numpy", "ray")

Status = Literal["created", "running", "done", "stopped", "failed"]


class RunDir:
    """A run's directory; made by :meth:`create`, found again by :meth:`open`.

    One process writes to it at a time; any number may read. Every file says which run it is of,
    and whether it is whole; :func:`fedjoint.runs.whole.check_whole` looks at them together.
    Layout::

        run.json                              the run's id; versions, seed, created, generation,
                                              status, the round of the newest checkpoint
        config.json                           the whole configuration
        metrics.jsonl                         one record per round
        nodes.json                            the nodes, when last heard of
        flower.json                           the number of the run on a Flower server
        stop                                  somebody asked for a stop (deployed)
        checkpoints/round-000010.safetensors  the newest two
        state.sqlite                          the clients' private state (simulation)
        best/backbone.safetensors             the best round by validation (``keep_best``)
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
            UserError: the directory cannot be made, or has no room.
        """
        run = cls(new_folder(parent, name))
        try:
            run._fill(config, own_problem)
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Return the run in ``path``.

        Raises:
            UserError: ``path`` is no run directory, or its configuration is of another run.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise UserError(f"{path}: no such folder; give a run directory")
        for file in (run._config, run._info):
            if not file.is_file():
                raise UserError(f"{path}: not a run directory: {file.name} is missing")
        read_sealed(run._config, run.id)
        return run

    @cached_property
    def id(self) -> str:
        """What no other run has, 32 hexadecimal digits.

        Raises:
            UserError: run.json is damaged.
        """
        return str(self.info["run"])

    @property
    def state(self) -> Path:
        """The file of the clients' private state, for :class:`fedjoint.node.store.StateStore`."""
        return self.path / "state.sqlite"

    @property
    def states(self) -> States:
        """The clients' private state, to read."""
        return States(self.state, self.id)

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json.

        From the start: ``run`` (its id), ``versions``, ``seed``, ``created``, ``generation``,
        ``status``, ``saved`` (the round of the newest checkpoint; 0: none) and ``own_problem``.

        Once they are known: ``clients``, how many there are; ``inputs``, what the backbone reads,
        of a simulation without groups; ``path``, why clients train as they
        do, where that was tried; ``best``, the best round, where it is kept; ``method``, the local
        method; ``deployed``, whether the clients' state is elsewhere; ``interrupted``, whether the
        run was stopped amid a round.

        Raises:
            UserError: the file is damaged.
        """
        return read_sealed(self._info)

    @property
    def status(self) -> Status:
        """How the run is doing."""
        status: Status = self.info["status"]
        return status

    @property
    def generation(self) -> int:
        """How often the run was resumed."""
        return int(self.info["generation"])

    def config(self) -> Config:
        """Return the run's configuration.

        Raises:
            UserError: the file is damaged or of another run, or this version refuses it.
        """
        tree = read_sealed(self._config, self.id)
        del tree["run"]
        return check(tree, str(self._config))

    def described(self, problem: object | None) -> None:
        """Make sure that the run's problem is known.

        Args:
            problem: the one at hand; None where there is only the run's configuration.

        Raises:
            UserError: there is none, and the configuration does not describe it.
        """
        if self.info["own_problem"] and problem is None:
            raise UserError(
                f"{self.path}: its problem was passed from Python; do this from Python, too, with "
                "the argument problem"
            )

    def note_clients(self, clients: int) -> None:
        """Keep how many clients the run has; those of a deployed run come and go."""
        self._note(clients=clients)

    def note_path(self, why: str) -> None:
        """Keep why clients train as the configuration says."""
        self._note(path=why)

    def note_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Keep what the backbone reads, see :class:`fedjoint.data.reads.Reads`."""
        self._note(inputs=inputs)

    @property
    def inputs(self) -> dict[str, Any] | None:
        """What the backbone reads; None: an older run, or a deployed one, does not say."""
        return self.info.get("inputs")

    @property
    def clients(self) -> int | None:
        """How many clients the run has; None: as many as its nodes have."""
        return self.info.get("clients")

    def mark(self, status: Status, **details: Any) -> None:
        """Note how the run is doing, and ``details`` of it."""
        self._note(**{"interrupted": False, "status": status, **details})

    def mark_interrupted(self) -> None:
        """Note that the run was stopped amid a round, and has no final backbone."""
        self.mark("stopped", interrupted=True)

    def ask_to_stop(self) -> None:
        """Ask the server of a deployed run to stop it, after its newest round.

        Raises:
            UserError: the folder is full or not writable.
        """
        write_bytes(self.path / "stop", b"")

    @property
    def to_stop(self) -> bool:
        """Whether somebody asked for that since the run went on last."""
        return (self.path / "stop").exists()

    def go_on(self) -> None:
        """Forget that somebody asked for a stop."""
        (self.path / "stop").unlink(missing_ok=True)

    def bump_generation(self) -> int:
        """Count a resume; return how many there have been, this one included."""
        self._note(generation=self.generation + 1)
        return self.generation

    def change(self, settings: Mapping[str, Any]) -> None:
        """Let the run go on with other settings, which change no number that is done.

        Args:
            settings: path, such as ``engine.min_nodes`` -> value; for ``rounds``, see
                ``check_extendable``.

        Raises:
            UserError: a value is wrong, or the folder is full or not writable.
        """
        tree = read_sealed(self._config, self.id)
        for path, value in settings.items():
            *parents, name = path.split(".")
            part = tree
            for parent in parents:
                part = part[parent]
            part[name] = value
        check({key: value for key, value in tree.items() if key != "run"}, str(self._config))
        write_sealed(self._config, self.id, tree)

    def write_nodes(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Replace what is known of the nodes, see :meth:`fedjoint.server.roster.Roster.report`."""
        # Every round: not worth waiting for the disk.
        tree = {"time": time.time(), "nodes": list(nodes)}
        with _NODES:
            write_sealed(self._nodes, self.id, tree, durable=False)

    def nodes(self) -> list[dict[str, Any]]:
        """Return what was last written of the nodes; nothing where the run has not begun.

        Raises:
            UserError: the file is missing, damaged or of another run.
        """
        return list(self._heard()["nodes"])

    def last_news(self) -> float | None:
        """Return when the server last gave a sign of life, seconds since 1970; None: never.

        Raises:
            UserError: as :meth:`nodes`.
        """
        when = self._heard()["time"]
        return None if when is None else float(when)

    def write_number(self, number: str) -> None:
        """Keep the number that the run has on a Flower server."""
        write_sealed(self._number, self.id, {"number": number})

    def number(self) -> str | None:
        """Return the number that the run last had on a Flower server; None: none.

        Raises:
            UserError: the file is damaged or of another run.
        """
        return read_sealed(self._number, self.id)["number"] if self._number.exists() else None

    def append(self, record: RoundRecord) -> None:
        """Add a round's record to metrics.jsonl, see :meth:`MetricsFile.append`.

        The next checkpoint makes it durable. After a crash, :meth:`truncate` first.
        """
        self._metrics.append(record)

    def records(self) -> list[RoundRecord]:
        """Return the rounds' records, see :meth:`MetricsFile.read`."""
        return self._metrics.read()

    @property
    def written(self) -> int:
        """Bytes of metrics written so far."""
        return self._metrics.size

    def truncate(self, round: int) -> None:
        """Keep the records of rounds up to ``round`` alone."""
        self._metrics.truncate(round)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Save what a resume needs beside the clients' state; keep the newest two.

        Raises:
            UserError: the disk is full.
        """
        self._metrics.sync()
        path = self._checkpoints / f"round-{checkpoint.round:06d}.safetensors"
        write_bytes(path, pack_checkpoint(self.id, checkpoint))
        self._note(saved=checkpoint.round)
        kept = self._saved()[:_KEPT]
        with writing(self._checkpoints):
            for other in self._checkpoints.iterdir():  # and what a killed writer left
                if other not in kept:
                    other.unlink()

    @property
    def has_checkpoints(self) -> bool:
        """Whether any checkpoint is left, whole or not."""
        return bool(self._saved())

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, or None if none was ever saved.

        Raises:
            UserError: checkpoints were saved, and none is whole; or one is of another run.
        """
        saved = self._saved()
        for path in saved:
            try:
                checkpoint = load_checkpoint(path, self.id)
                if checkpoint.round != _round_of(path):
                    raise DamagedError(f"it is that of round {checkpoint.round}")
                return checkpoint
            except DamagedError as error:
                log.warning("%s: skipped: %s", path, error)
            except OSError as error:  # a newer one has taken its place meanwhile
                log.warning("%s: skipped: %s", path, error.strerror)
        if round := self.info["saved"]:
            what = "no checkpoint is whole" if saved else "there is no checkpoint"
            raise UserError(
                f"{self._checkpoints}: {what}, and the run has saved round {round}; restore it "
                "from a backup, or start a new run"
            )
        return None

    def keep_best(self, checkpoint: Checkpoint) -> None:
        """Save a checkpoint as the best so far, in the place of the one before.

        Raises:
            UserError: the disk is full.
        """
        write_files(self.path, {_BEST: pack_checkpoint(self.id, checkpoint)})
        self._note(best=checkpoint.round)

    def forget_best(self) -> None:
        """Note that the best round, if there was one, is to be done again."""
        if self.info.get("best"):
            self._note(best=0)

    def best(self) -> Checkpoint | None:
        """Return the run after its best round; None where none is kept.

        Raises:
            UserError: it is missing, damaged, or of another run.
        """
        best, noted = self._read(_BEST), self.info.get("best", 0)
        if noted and (best is None or best.round < noted):
            what = f"that of round {best.round}" if best else "missing"
            raise UserError(
                f"{self.path / _BEST}: it is {what}, and the best round is {noted}; restore it "
                "from a backup"
            )
        return best

    def finish(self, last: Checkpoint, records: Sequence[RoundRecord]) -> None:
        """Write the final backbone and metrics.csv.

        Args:
            last: the run after its last round, without the strategy's state.
            records: the rounds' records.

        Raises:
            UserError: the disk is full.
        """
        backbone = pack_checkpoint(self.id, last)
        contents = {_FINAL: backbone, "metrics.csv": as_csv(self.id, records)}
        write_files(self.path, contents)

    def final(self) -> Checkpoint | None:
        """Return the final backbone and ledger; None where the run has not ended yet.

        Raises:
            UserError: it is damaged, or of another run.
        """
        return self._read(_FINAL)

    def _read(self, name: str) -> Checkpoint | None:
        path = self.path / name
        if not path.exists():
            return None
        try:
            return load_checkpoint(path, self.id)
        except (DamagedError, OSError) as error:
            raise UserError(f"{path}: damaged: {error}; restore it from a backup") from None

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
    def _number(self) -> Path:
        return self.path / "flower.json"

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @cached_property
    def _metrics(self) -> MetricsFile:
        return MetricsFile(self.path / "metrics.jsonl", self.id)

    def _saved(self) -> list[Path]:
        """Return the checkpoints' files, the newest first."""
        return sorted(self._checkpoints.glob("round-*.safetensors"), key=_round_of, reverse=True)

    def _fill(self, config: Config, own_problem: bool) -> None:
        """Write the files of a run that has not begun; run.json, which makes it one, comes last."""
        # A limit may be infinite: written as Infinity, which is Python's JSON, not everyone's.
        tree = config.model_dump()
        for plugin in (tree["strategy"], *tree["callbacks"]):
            plugin["name"] = anchored(plugin["name"])
        if reference := config.diagnostics.reference:
            tree["diagnostics"]["reference"] = str(Path(reference).resolve())
        if initial := config.model.initial:
            tree["model"]["initial"] = str(Path(initial).resolve())
        run = uuid.uuid4().hex
        with writing(self.path):
            self._checkpoints.mkdir()
            (self.path / "metrics.jsonl").touch()
        write_sealed(self._config, run, plain(tree, nonfinite=float))
        info = {
            "versions": {**{p: _version(p) for p in _PACKAGES}, "python": _python()},
            "seed": config.seed,
            "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            "generation": 0,
            "status": "created",
            "saved": 0,
            "own_problem": own_problem,
        }
        write_sealed(self._info, run, info)

    def _note(self, **news: Any) -> None:
        info = self.info
        write_sealed(self._info, info.pop("run"), {**info, **news})

    def _heard(self) -> dict[str, Any]:
        if not self._nodes.exists() and not self._metrics.size:
            return {"time": None, "nodes": []}
        return read_sealed(self._nodes, self.id)


def _round_of(path: Path) -> int:
    number = path.stem.removeprefix("round-")
    return int(number) if number.isdecimal() else -1


def new_folder(parent: Path, name: str) -> Path:
    """Make ``<parent>/<name>-<date>-<time>``, or one with a number after it where that exists.

    Raises:
        UserError: the folder cannot be made.
    """
    if not name or not name.isprintable() or Path(name).name != name or len(name) > 200:
        raise UserError(f"name = {name!r} cannot name a folder; use letters, digits, dashes")
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    number, path = 1, parent / stem
    while True:
        try:
            path.mkdir(mode=0o700, parents=True)  # it will hold what clients keep to themselves
            return path
        except FileExistsError:
            if not parent.is_dir():
                raise UserError(f"{parent}: not a folder; set output.dir") from None
            number += 1
            path = parent / f"{stem}-{number}"
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; set output.dir") from None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder that was never installed
        return None


def _python() -> str:
    return platform.python_version()
