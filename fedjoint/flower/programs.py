"""Flower's own programs, driven for a run: the app to submit, a connection, a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedjoint.errors import UserError

if TYPE_CHECKING:
    from fedjoint.flower.control import Control
    from fedjoint.runs.directory import RunDir
    from fedjoint.runs.record import RoundRecord

_ASK = 10.0  # seconds between two questions to the server
_LOOK = 0.2  # seconds between two looks of Flower's own simulation for a run to start

_APP = """\
[project]
name = "fedjoint-run"
version = "{version}"
description = "A run of fedjoint; the code is what the machines have installed."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedjoint"

[tool.flwr.app.components]
serverapp = "fedjoint.flower.server_app:app"
clientapp = "fedjoint.clients.app:app"

[tool.flwr.app.config]
run-dir = ""
"""


def program(name: str) -> str:
    """Return the path of one of Flower's programs, beside this Python or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


@dataclass(frozen=True)
class Connection:
    """A SuperLink as ``flwr`` knows it.

    Attributes:
        home: Flower's folder (``FLWR_HOME``) for this connection.
        address: ``host:port``.
        authority: certificate of the authority that signed the server's; None: no encryption.
        name: of the connection in its ``config.toml``.
    """

    home: Path
    address: str
    authority: Path | None
    name: str = "fedjoint"

    @classmethod
    def make(cls, home: Path, address: str, certificate: Path | None) -> Connection:
        """Write a connection to ``address`` (``host:port``).

        Args:
            home: an own folder for Flower's files.
            address: of the SuperLink.
            certificate: of the authority that signed the SuperLink's; None: no encryption.
        """
        home.mkdir(parents=True, exist_ok=True)
        trust = (
            f"root-certificates = {json.dumps(str(certificate.resolve()))}"
            if certificate
            else "insecure = true"
        )
        text = f'[superlink]\ndefault = "fedjoint"\n\n[superlink.fedjoint]\naddress = "{address}"\n'
        (home / "config.toml").write_text(text + trust + "\n", "utf-8")
        return cls(home, address, certificate)

    def environment(self) -> dict[str, str]:
        """Return the environment for Flower's programs."""
        # Telemetry is off in os.environ since fedjoint was imported, unless the user has it on.
        own = {"FLWR_HOME": str(self.home.resolve()), "FLWR_DISABLE_UPDATE_CHECK": "1"}
        own["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = str(_LOOK)
        # Flower's programs start each other by name, also where no shell has put them on the path.
        beside = str(Path(sys.executable).parent)
        own["PATH"] = os.pathsep.join([beside, *filter(None, [os.environ.get("PATH")])])
        return dict(os.environ) | own

    def call(self, *arguments: str) -> dict[str, Any]:
        """Run ``flwr`` and return what it answers.

        Raises:
            UserError: it fails.
        """
        done = subprocess.run(
            [program("flwr"), *arguments, "--format", "json"],
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        start = done.stdout.find("{")
        try:
            answer = json.loads(done.stdout[start:]) if start >= 0 else {}
        except json.JSONDecodeError:
            answer = {}
        if not answer.get("success"):
            said = answer.get("error-message") or done.stderr or done.stdout or "it said nothing"
            raise UserError(f"flwr {arguments[0]} failed: {_last_line(str(said))}")
        return answer

    def submit(self, app: Path, settings: Mapping[str, str], nodes: int = 0) -> str:
        """Start a run and return its id.

        Args:
            app: folder of the Flower app.
            settings: its run configuration.
            nodes: simulated nodes; 0: the SuperLink has real ones.
        """
        words = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
        extra = (
            ["--federation-config", f"num-supernodes={nodes} client-resources-num-cpus=1"]
            if nodes
            else []
        )
        answer = self.call("run", str(app), self.name, "--run-config", words, *extra)
        return str(answer["run-id"])

    def status(self, run: str) -> str:
        """Return a run's status, see :meth:`fedjoint.flower.control.Control.status`.

        A server that is too busy to say so has not ended it.

        Raises:
            UserError: the server does not answer.
        """
        from fedjoint.flower.control import SlowError

        try:
            with self._control() as server:
                return server.status(int(run))
        except SlowError:
            return "running"

    def stop(self, run: str) -> None:
        """End a run at once.

        Raises:
            UserError: the server does not answer, or does not know it.
        """
        with self._control() as server:
            server.stop(int(run))

    def _control(self) -> Control:
        # Not before it is needed: that takes a second, and the command line uses this module.
        from fedjoint.flower.control import Control

        return Control(self.address, self.authority)


def follow(
    connection: Connection,
    number: str,
    run: RunDir,
    on_round: Callable[[RoundRecord], object],
    meanwhile: Callable[[], None] = lambda: None,
    there: Callable[[], bool] = lambda: True,
) -> str:
    """Wait for a run to end and return its status.

    Args:
        connection: to its server.
        number: of the run there.
        run: its directory.
        on_round: gets the records of new rounds.
        meanwhile: is called every now and then.
        there: whether the server still is, at little cost.

    Raises:
        UserError: the server does not answer, or knows no such run.
    """
    written, seen, ask = run.written, len(run.records()), time.monotonic() + _ASK
    while True:
        # The run directory says how far it is, at less cost than the server.
        ended = run.info["status"] in ("done", "stopped", "failed")
        status = "running"
        if ended or time.monotonic() > ask or not there():
            status, ask = connection.status(number), time.monotonic() + _ASK
        if run.written != written:  # reading all of a long run's metrics takes its time
            written, records = run.written, run.records()
            for record in records[seen:]:
                on_round(record)
            # A resumed run first drops the rounds that it does again.
            seen = len(records)
        meanwhile()
        if status.startswith("finished"):
            return status
        if status == "unknown":
            raise UserError(f"the server does not know the run {number} any more")
        time.sleep(0.5)


def make_app_folder(folder: Path) -> Path:
    """Write the Flower app whose code is the installed fedjoint; return ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(_APP.format(version=version("fedjoint")), "utf-8")
    return folder


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else text
