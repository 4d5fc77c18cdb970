"""What is fuzzed: an input from outside, what reads it, and what has to hold whatever it is."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from flwr.app import Message
from hypothesis import strategies as st

import fedjoint
from fedjoint import cli
from fedjoint.config.load import check, load
from fedjoint.config.schema import Config
from fedjoint.data.idx import read_idx
from fedjoint.data.tabular import read_table
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server
from fedjoint.model.layout import Layout
from fedjoint.protocol import wire
from fedjoint.protocol.compression import CompressionConfig
from fedjoint.protocol.requests import TRAIN, Asked
from fedjoint.protocol.training import Terms
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import check_whole
from fedjoint.server.collect import Collector

_LONGEST = 2100  # characters of a line

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=8,
)


@dataclass(frozen=True)
class Target:
    """Something that reads what comes from outside.

    Attributes:
        inputs: what it is given.
        read: reads it in a folder; returns what came of it, in a word that two calls share.
            Raises nothing but an AssertionError, where an invariant does not hold.
    """

    inputs: st.SearchStrategy
    read: Callable[[object, Path], str]


def refused(error: UserError) -> str:
    """Return the word for an error, once it is one line."""
    line = str(error)
    assert line and line.isprintable() and len(line) <= _LONGEST, repr(line)
    return f"refused: {line}"


def setting_paths(section: type = Config, before: str = "") -> list[str]:
    """Return the paths of all settings."""
    found = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            found += setting_paths(inner, f"{before}{name}.")
        found.append(before + name)
    return found


def read_settings(given: object, folder: Path) -> str:
    """Check a tree of settings."""
    tree: dict = {}
    for path, value in given:
        *tables, key = path.split(".")
        place = tree
        for table in tables:
            place = place.setdefault(table, {}) if isinstance(place, dict) else {}
        if isinstance(place, dict):
            place[key] = value
    try:
        check(tree)
    except UserError as error:
        return refused(error)
    return "taken"


CSV = b"clinic,age,ill\na,1.5,0\nb,2.5,1\na,3.5,1\nb,0.5,0\n"
IDX = b"\0\0\x08\x02\0\0\0\x03\0\0\0\x02abcdef"
TOML = b'name = "a"\nrounds = 2\n[data]\nclients = 3\n[data.source]\nname = "digits"\n'
READERS = {
    "csv": (CSV, lambda path: read_table(path, None, ",")),
    "idx": (IDX, read_idx),
    "toml": (TOML, load),
}

edits = st.lists(
    st.tuples(
        st.sampled_from(["cut", "flip", "insert", "repeat"]),
        st.integers(0, 10_000),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Return ``data`` with changes at places in it."""
    for kind, place, new in changes:
        at = place % (len(data) + 1)
        if kind == "cut":
            data = data[:at]
        elif kind == "flip":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        else:
            data = data[:at] + data[at : at + 40] * (place % 50) + data[at:]
    return data


def read_file(given: object, folder: Path) -> str:
    """Read a file of data, or of settings, that is not in order."""
    kind, changes = given
    start, reader = READERS[kind]
    path = folder / f"it.{kind}"
    path.write_bytes(edited(start, changes))
    before = path.read_bytes()
    try:
        reader(path)
        said = "taken"
    except UserError as error:
        said = refused(error)
    assert path.read_bytes() == before
    return said


@cache
def finished() -> Path:
    """Return the directory of a run of two rounds."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    settings = {
        "rounds": 2,
        "data": {"clients": 2, "task_mix": [["digit"]]},
        "model": {"backbone": {"options": {"hidden": [2]}}},
        "engine": {"name": "inline"},
        "output": {"dir": str(folder), "checkpoint_every": 1},
    }
    return fedjoint.simulate(settings).path


def digests(folder: Path) -> dict[str, str]:
    """Return file -> digest of a folder; SQLite's own two come and go."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def read_run(given: object, folder: Path) -> str:
    """Look at a run directory of which one file is damaged or gone."""
    number, changes = given
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(finished(), run)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    victim = files[number % len(files)]
    if changes is None:
        victim.unlink()
    else:
        victim.write_bytes(edited(victim.read_bytes(), changes))
    before = digests(run)
    try:
        check_whole(RunDir.open(run))
        said = "taken"
    except UserError as error:
        said = refused(error)
    assert digests(run) == before, "something was written"
    return said


CLIENTS = np.array([3, 5, 8])
LAYOUT = Layout({"w": (2, 2)})
REPLY = {
    "tasks": ["a"],
    "shares": True,
    "failed": [],
    "seconds": 1.0,
    "bytes_per_client": 16,
    "fallback": None,
}


def arrays() -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of a reply that is in order."""
    return {
        "updates": {"updates": np.ones((3, 4), np.float32)},
        "report": {
            "clients": CLIENTS,
            "good": np.ones(3, bool),
            "examples": np.array([4, 5, 6]),
            "steps": np.ones(3, np.int64),
            "work": np.ones(3, np.int64),
            "losses": np.ones((3, 1), np.float32),
            "block_seconds": np.ones(1),
        },
    }


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nan": lambda a: a * np.nan,
    "huge": lambda a: a * 10**15,
    "negative": lambda a: -1 * a,
    "text": lambda a: a.astype(str),
    "complex": lambda a: a.astype(complex),
    "flat": np.ravel,
    "short": lambda a: a[:1],
    "empty": lambda a: a[:0],
    "deep": lambda a: a.reshape(*a.shape, 1),
    "scalar": lambda a: np.asarray(a.ravel()[0]),
    "bytes": lambda a: a.astype(np.uint8),
}


def read_reply(given: object, folder: Path) -> str:
    """Collect a reply that is not in order beside one that is."""
    told, spoilt = given
    be_server()
    records = arrays()
    for record, name, change in spoilt:
        with np.errstate(all="ignore"):
            records[record][name] = CHANGES[change](records[record][name])
    asked = Asked(
        clients=CLIENTS,
        weights=np.ones(3),
        blocks=np.array([0]),
        sizes=np.array([3]),
        tasks=np.ones((3, 1), bool),
        declared=np.array([4, 5, 6]),
        budget=np.ones(3, np.int64),
    )
    terms = Terms(LAYOUT, ("a",), False, True, CompressionConfig())
    collector = Collector(terms, CLIENTS[:0])
    content = wire.pack({}, **records)
    content["config"]["json"] = json.dumps(REPLY | dict(told))
    collector.add(1, asked, Message(content, 1, TRAIN))
    others = CLIENTS + 100
    honest = arrays()
    honest["report"]["clients"] = others
    content = wire.pack(REPLY, **honest)
    collector.add(2, replace(asked, clients=others), Message(content, 1, TRAIN))
    collector.settle()
    assert set(others) <= set(collector.trained.tolist()), "an honest node paid for it"
    updates = collector.updates(torch.zeros(4), 1)
    assert updates.matrix.isfinite().all()
    assert abs(collector.losses()[0] or 0) <= 1e6, "a claimed loss owns the objective"
    assert not (np.abs(collector.client_losses()) > 1e6).any() and collector.work <= 12_000
    for failure in collector.failed:
        assert (
            failure.node == 1 and len(failure.reason) <= _LONGEST and failure.reason.isprintable()
        )
    return f"{len(collector.trained)} trained: {[f.reason for f in collector.failed]}"


COMMANDS = [
    "simulate",
    "config",
    "show",
    "resume",
    "status",
    "export",
    "predict",
    "plot",
    "nothing",
]
words = st.text(st.characters(exclude_characters="\0"), max_size=40) | st.sampled_from(
    [
        "--set",
        "--engine",
        "rounds=0",
        "data.clients=-1",
        "--rounds",
        "x.toml",
        "-",
        "--help",
        "=",
        "..",
    ]
)


def read_command(given: object, folder: Path) -> str:
    """Run a command line that makes no sense."""
    command, rest = given
    out, err = io.StringIO(), io.StringIO()
    arguments = ["fedjoint", command, "no-such-thing", *rest]
    status: object = 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", arguments),
        mock.patch("signal.signal"),
    ):
        try:
            cli.main()
        except SystemExit as error:
            status = error.code
    assert status in (0, 2), (status, err.getvalue())
    assert "Traceback" not in err.getvalue() and not list(folder.glob("runs/*"))
    if status == 2:
        (line,) = err.getvalue().splitlines()
        assert line.startswith("error: ") and line.isprintable() and len(line) <= _LONGEST
    return f"exit {status}: {err.getvalue()}"


TARGETS = {
    "settings": Target(
        st.lists(st.tuples(st.sampled_from(setting_paths()), ANY), min_size=1, max_size=3),
        read_settings,
    ),
    "data files": Target(st.tuples(st.sampled_from(sorted(READERS)), edits), read_file),
    "run directories": Target(st.tuples(st.integers(0, 1000), st.none() | edits), read_run),
    "messages": Target(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(sorted(REPLY)), ANY), max_size=2),
            st.lists(
                st.sampled_from(
                    [(r, n, c) for r, named in arrays().items() for n in named for c in CHANGES]
                ),
                max_size=2,
                unique_by=lambda change: change[1],
            ),
        ),
        read_reply,
    ),
    "command lines": Target(
        st.tuples(st.sampled_from(COMMANDS), st.lists(words, max_size=4)), read_command
    ),
}
