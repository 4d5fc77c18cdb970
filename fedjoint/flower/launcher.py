"""Starts the ServerApp of every run that is submitted, and sees it end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.superlink.servicer.runtime.runtime_handlers import acquire_task

from fedjoint._util.often import Often
from fedjoint.flower.badges import FOLDER

log = logging.getLogger("fedjoint.deploy")

_LOOK = 1.0  # seconds between two looks for a run
_VOUCH = 10.0  # seconds between two signs of life of the runs: a SuperLink waits for thirty
_NOTED = 15.0  # seconds that a note of a run's end may take
_LAST = 60.0  # seconds that a run has to end by itself once the server stops


class _Program(NamedTuple):
    """The ServerApp of a run.

    Attributes:
        run: the run's number.
        process: its process.
    """

    run: int
    process: subprocess.Popen[bytes]


class Launcher:
    """Runs ServerApps as processes of this one, which Flower's SuperExec does in one more.

    Args:
        state: the SuperLink's.
        connection: options of ``flwr-serverapp`` that say how to reach the SuperLink.
        nodes: folder of the nodes' keys; None: they have none.
    """

    def __init__(self, state: Any, connection: list[str], nodes: Path | None) -> None:
        self._state, self._connection = state, connection
        self._environment = os.environ | ({FOLDER: str(nodes)} if nodes else {})
        self._running: dict[int, _Program] = {}  # by task
        self._vouched = -_VOUCH
        self._often = Often(self._look, _LOOK, "launcher: no run can be started")

    def __enter__(self) -> Launcher:
        self._often.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.drain()

    def drain(self) -> None:
        """Start no more runs, and have those that go on stop after their newest round."""
        self._often.join()
        for _, process in self._running.values():
            process.terminate()
        for task, (run, process) in self._running.items():
            try:
                process.wait(_LAST)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self._note(run, f"it did not end within {_LAST:g} s, and was killed")
            self._state.finish_task(task, SubStatus.STOPPED, "the server was stopped")
        self._running.clear()

    def _look(self) -> None:
        self._start()
        self._reap()
        if time.monotonic() - self._vouched > _VOUCH:
            self._vouch()

    def _start(self) -> None:
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        found = acquire_task(request, self._state)
        if not found.token:
            return
        command = [sys.executable, "-P", "-m", "fedjoint.flower.serverapp"]
        command += [*self._connection, "--token", found.token]
        process = subprocess.Popen(command, env=self._environment)
        self._running[found.task.task_id] = _Program(found.task.run_id, process)

    def _vouch(self) -> None:
        """Say that the processes are alive: on a busy machine, one that starts says so too late."""
        for task in self._running:
            self._state.acknowledge_task_heartbeat(task)
        self._vouched = time.monotonic()

    def _reap(self) -> None:
        ended = {t: p for t, p in self._running.items() if p.process.poll() is not None}
        for task, (run, process) in ended.items():
            del self._running[task]
            if process.returncode < 0:
                text = f"its process was killed by signal {-process.returncode}"
                log.error("a run ended: %s", text)
                self._vouch()  # for the others, while the note takes its time
                # First, as whoever follows the run reads there why it failed.
                self._note(run, text)
                self._state.finish_task(task, SubStatus.FAILED, text)

    def _note(self, run: int, why: str) -> None:
        """Note in a run's directory that it failed, as its process could not."""
        for info in self._state.get_run_info(run_ids=[run]):
            # A run of ``flwr run`` has named its directory itself.
            if path := info.override_config.get("run-dir"):
                command = [sys.executable, "-P", "-m", "fedjoint.flower.obituary", str(path), why]
                with suppress(subprocess.TimeoutExpired):
                    subprocess.run(command, timeout=_NOTED)
