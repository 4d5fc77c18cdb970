"""What a node does all day: it fetches messages, has its worker answer them, and sends replies."""

from __future__ import annotations

import contextlib
import logging
import time

from fedjoint._util.often import Often
from fedjoint.deploy.figures import NodeFigures
from fedjoint.deploy.resident import Resident
from fedjoint.deploy.stop import Stop
from fedjoint.deploy.trouble import Trouble
from fedjoint.flower.fleet import BEAT, AwayError, Fleet, GoneError, RefusedError
from fedjoint.flower.parcels import Parcel

log = logging.getLogger("fedjoint.deploy")

_FIRST, _MOST = 0.1, 3.0  # seconds between two looks for a message
_HELD = 0.5  # seconds: a look that took longer has waited for a message at the server
_AGAIN, _LAST = 0.2, 20.0  # seconds between two looks for whether a reply arrived, and in all


class Member:
    """A node of a server, until it is asked to stop.

    Args:
        fleet: the connection to the server.
        worker: answers messages.
        stop: says when to end.
        trouble: says what is wrong with the connection.
        figures: count what is done.
    """

    def __init__(
        self, fleet: Fleet, worker: Resident, stop: Stop, trouble: Trouble, figures: NodeFigures
    ) -> None:
        self._figures = figures
        self._fleet, self._worker, self._stop, self._trouble = fleet, worker, stop, trouble
        self._reply: tuple[int, Parcel, float] | None = None
        self._sent: tuple[int, str] | None = None

    def run(self) -> None:
        """Serve until the stop; a message that is being answered then is finished first."""
        # A SuperLink takes a node for gone after two intervals; a beat may be lost.
        with Often(self._beat, 0.4 * BEAT, "beat"):
            self._serve()
            with contextlib.suppress(AwayError, RefusedError):
                self._see_it_arrive()
        with contextlib.suppress(AwayError, RefusedError):
            self._fleet.leave()

    def _serve(self) -> None:
        pause = _FIRST
        while not self._stop.asked or self._reply:
            began = time.monotonic()
            try:
                busy = self._step()
            except AwayError as error:
                self._wait(error)
            except RefusedError as error:
                self._fleet.forget()
                self._reply = None
                self._wait(error)
            else:
                self._trouble.over()
                self._figures.connected = True
                held = time.monotonic() - began > _HELD
                pause = _FIRST if busy or held else min(_MOST, 1.2 * pause)
                if not busy:
                    self._worker.rest()
                if not busy and not held:
                    self._stop.nap(pause)

    def _step(self) -> bool:
        """Do what is next, and say whether there was anything to do."""
        if not self._fleet.node:
            number = self._fleet.join()
            log.info("connected to %s, as node %d", self._fleet.address, number)
        if self._reply is None:
            found = self._fleet.receive()
            if found is None:
                return False
            run, kind, asked = found
            began = time.monotonic()
            reply = self._worker.answer(run, self._fleet.node, asked, lambda: self._stop.asked > 1)
            if reply is None:
                return False
            self._reply = run, reply, time.monotonic() - began
            self._figures.answer(kind, self._reply[2])
        with contextlib.suppress(GoneError):
            self._fleet.send(*self._reply)
            self._sent = self._reply[0], self._reply[1].root
        self._reply = None
        return True

    def _see_it_arrive(self) -> None:
        """Wait until the run has the newest reply: a SuperLink drops those of a node that left."""
        end = time.monotonic() + _LAST
        while self._sent and not self._fleet.arrived(*self._sent):
            if self._stop.asked > 1 or time.monotonic() > end:
                return
            time.sleep(_AGAIN)

    def _wait(self, error: AwayError | RefusedError) -> None:
        seconds = self._trouble.say(error)
        self._figures.connected = False
        if self._stop.asked:
            self._reply = None  # who asked to stop does not wait for a server
        self._stop.nap(seconds)

    def _beat(self) -> None:
        with contextlib.suppress(AwayError, RefusedError):
            if self._fleet.node:
                self._fleet.beat()
