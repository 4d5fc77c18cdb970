"""Flower's own simulation: a SuperLink of our own, and ``flwr run``."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from fedjoint._util import processes
from fedjoint._util.net import free_port, wait_for
from fedjoint.config.schema import Config
from fedjoint.engines.base import Engine
from fedjoint.errors import ANYTHING, UserError
from fedjoint.flower.programs import Connection, follow, make_app_folder
from fedjoint.problem import Problem
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import check_whole
from fedjoint.server.callbacks import Callback, followed


class Flower(Engine):
    """Flower's own simulation, ``engine.workers`` nodes (default 2)."""

    apart = True

    def execute(
        self, config: Config, problem: Problem, run: RunDir, callbacks: Sequence[Callback]
    ) -> dict[str, Tensor]:
        """Run a scenario in Flower's simulation runtime, which builds its own ``problem``."""
        folder = run.path / "flower"
        try:
            with superlink(folder) as connection:
                app = make_app_folder(folder / "app")
                settings = {"run-dir": str(run.path.resolve())}
                number = connection.submit(app, settings, config.engine.workers or 2)
                with followed(callbacks, config, run.path) as on_round:
                    status = follow(connection, number, run, on_round)
                    if not status.endswith("completed"):
                        log = folder / "superlink.log"
                        raise UserError(f"Flower's simulation {status}; see {log}")
        except ANYTHING:
            run.mark("failed")
            raise
        newest = check_whole(run, states=False).newest
        assert newest is not None, "the run has ended"
        return newest.whole


@contextmanager
def superlink(folder: Path) -> Iterator[Connection]:
    """Start a SuperLink for simulations on a free port of this machine, and stop it after."""
    port = free_port()
    connection = Connection.make(folder, f"127.0.0.1:{port}", None)
    command = [sys.executable, "-P", "-m", "fedjoint.flower.simulation_link"]
    command += ["--insecure", "--simulation"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--disable-runtime-dependency-installation"]
    # Flower's simulation would join whatever Ray cluster was last started on this machine.
    environment = {"RAY_ADDRESS": "local"} | connection.environment()
    # Modules of the user's own are found there as they are here.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with (folder / "superlink.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        if not wait_for("127.0.0.1", port, math.inf, lambda: process.poll() is None):
            raise UserError(f"Flower's SuperLink does not start; see {log.name}")
        yield connection
    finally:
        # With whatever it started, the simulation and Ray, in sessions of their own.
        processes.kill(process.pid)
        process.wait()
