"""The worker of a node: a process that keeps model, data and traces from message to message.

It is the one process of a node that imports PyTorch. It begins with the first message, and rests
(that is, ends) after ten minutes without one: all that it must keep is in the node's state folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fedjoint.flower.parcels import Parcel, be_node, failure

log = logging.getLogger("fedjoint.deploy")

_REST = 600.0  # seconds without a message after which the worker ends
_LOOK = 0.2  # seconds between two looks whether the node is to stop
_LAST = 10.0  # seconds that a worker has to end by itself


@dataclass(frozen=True)
class OwnNode:
    """What a node is told of itself where it is started.

    Attributes:
        name: what people call it.
        state: folder of heads and other private state.
        clients: ids of the clients that live there.
        data: settings that replace the run's, see :func:`fedjoint.node.own_data.own_data`.
        foreign_code: whether runs may name code by file or module beside these.
        mods: references of Flower's mods, which its clients' updates pass.
    """

    name: str
    state: str
    clients: list[int]
    data: dict[str, Any]
    foreign_code: bool = False
    mods: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it as the ClientApp reads it."""
        return json.dumps(asdict(self))


class Resident:
    """The worker, as its node sees it; started when it is needed, and anew when it has died.

    It reads from a pipe that no other process has, and ends with the node: also where that is
    killed, as the worker's standard input then ends.

    Args:
        own: what the node is.
    """

    def __init__(self, own: OwnNode) -> None:
        self.own = own
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._used = time.monotonic()

    def __enter__(self) -> Resident:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def answer(
        self, run: int, node: int, asked: Parcel, dropped: Callable[[], bool]
    ) -> Parcel | None:
        """Have a message answered; where the worker dies of it, the reply says so.

        Args:
            run: number of its run.
            node: number of the node.
            asked: the message.
            dropped: whether nobody wants the answer any more.

        Returns:
            The reply; None where it was dropped.
        """
        pipe = self._start()
        try:
            pipe.send_bytes(json.dumps({"run": run, "node": node}).encode())
            asked.send(pipe)
            while not pipe.poll(_LOOK):
                if dropped():
                    self._kill()
                    return None
            reply = Parcel.receive(pipe)
        except (EOFError, OSError):
            return self._died(run, node, asked)
        self._used = time.monotonic()
        return reply

    def rest(self) -> None:
        """End the worker where it has had nothing to do for long."""
        if self._process and time.monotonic() - self._used > _REST:
            log.info("no message for %g minutes: the worker ends, until the next one", _REST / 60)
            self.end()

    def end(self) -> None:
        """End the worker."""
        if self._process is None or self._pipe is None:
            return
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST)
        self._kill()

    def _start(self) -> Connection:
        if self._process and self._pipe and self._process.poll() is None:
            return self._pipe
        if self._process:
            log.warning("the worker had ended (%s); starting another", _ending(self._process))
            self._kill()
        ours, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "fedjoint.deploy.worker", str(theirs.fileno())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
        theirs.close()
        ours.send_bytes(self.own.text().encode())
        self._pipe = ours
        return ours

    def _died(self, run: int, node: int, asked: Parcel) -> Parcel:
        process = self._process
        assert process is not None
        process.wait()
        how = _ending(process)
        self._kill()
        why = f"node {self.own.name}: its worker ended ({how}); its log says more"
        log.error("%s: %s", why, Path(self.own.state) / "log.jsonl")
        be_node(run, node)
        message = asked.message()
        return Parcel.of(failure(why, message))

    def _kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()
        if self._pipe:
            self._pipe.close()
        self._process = self._pipe = None


def _ending(process: subprocess.Popen[bytes]) -> str:
    status = process.returncode
    if status == -9:
        return "killed, as where memory runs out"
    return f"signal {-status}" if status < 0 else f"exit status {status}"
