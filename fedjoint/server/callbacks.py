"""What is told how a run goes: the run directory, the heartbeat, a progress bar, your own."""

from __future__ import annotations

import inspect
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from fedjoint._util.logs import event
from fedjoint._util.wording import who
from fedjoint.config.schema import Config
from fedjoint.config.section import Plugin
from fedjoint.errors import UserError
from fedjoint.hooks import check_hooks
from fedjoint.options import check_maker, construct
from fedjoint.registry import find
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.record import Failure, RoundRecord, common_failure

log = logging.getLogger("fedjoint.server.serve")

_ALIKE = 3  # failures for one reason that are logged one by one

EVERY = 10.0  # seconds between two signs of life


@dataclass(frozen=True)
class Snapshot:
    """A run as a round left it.

    Attributes:
        round: the round; 0: before the first.
        backbone: called without arguments, returns a copy of the shared tensors, by name.
        tasks: what the ``m`` columns of ``values`` are: a task, for its first metric, or
            ``task/metric``.
        clients: ``[n]`` int64 ids, ascending, of the clients evaluated in this round; none where no
            evaluation was due.
        values: ``[n, m]`` their own test metrics; NaN where they have none.
    """

    round: int
    backbone: Callable[[], dict[str, Tensor]]
    tasks: tuple[str, ...]
    clients: np.ndarray
    values: np.ndarray


class Callback:
    """Base class of what follows a run. Override what you need.

    Callbacks run in the server's process, in the order in which they were given; one that raises
    ends the run. With ``engine = "flower"`` the server is another process, in which those run that
    the configuration names; those passed to :func:`fedjoint.simulate` run in the one that started
    it, where there are no checkpoints and a run cannot be stopped.

    The options of a callback that the configuration names are the arguments of its ``__init__``.
    It may be made more than once: open files in :meth:`on_run_begin`.
    """

    def on_run_begin(self, config: Config, path: Path) -> None:
        """Hear that a run begins, or goes on.

        Args:
            config: its configuration.
            path: the run directory.
        """

    def after_round(self, record: RoundRecord) -> bool | None:
        """Hear what a round left; return True, or raise StopIteration, to have it be the last."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Hear, before :meth:`after_round`, what the backbone and the clients' metrics are now."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Hear that every node has saved its private state, and what is to be saved beside."""

    def on_best(self, checkpoint: Checkpoint) -> None:
        """Hear of a checkpoint whose validation metrics are the best so far (``keep_best``)."""

    def on_run_end(self, error: BaseException | None) -> None:
        """Hear that the run ended, and why where it failed."""


class _AfterRound(Callback):
    """Calls a function after every round, with the record, and the snapshot if it takes two."""

    def __init__(self, function: Callable[..., bool | None]) -> None:
        self._function, self._both = function, _takes_two(function)
        self._snapshot: Snapshot | None = None

    def on_snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def after_round(self, record: RoundRecord) -> bool | None:
        return self._function(record, self._snapshot) if self._both else self._function(record)


def _takes_two(function: Callable[..., object]) -> bool:
    """Return whether ``function`` must be called with two arguments.

    Raises:
        UserError: it takes neither one nor two.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C
        return False
    for count in (1, 2):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count == 2
    raise UserError(
        f"callback {function!r} takes {signature}: let it take the record, or the record and the "
        "snapshot"
    )


#: A callback, or a function that is called as ``after_round``, with one argument or two.
AnyCallback = Callback | Callable[..., bool | None]


def as_callback(callback: AnyCallback) -> Callback:
    """Return a callback that is one, or a function called after every round.

    Raises:
        UserError: it is neither, or a method of it takes other arguments.
    """
    if isinstance(callback, Callback):
        check_hooks(f"callback {type(callback).__name__}", callback, Callback)
        return callback
    if isinstance(callback, type):
        raise UserError(f"callback {callback.__name__} is a class: give an object of it")
    if not callable(callback):
        raise UserError(
            f"callback {callback!r}: give a fedjoint.Callback, or a function of records"
        )
    return _AfterRound(callback)


def make_callbacks(named: Sequence[Plugin]) -> list[Callback]:
    """Return the callbacks that a configuration names: classes, objects or functions.

    Raises:
        UserError: there is no such callback, an option is wrong, or it is none.
    """
    callbacks = []
    for plugin in named:
        callback, what = find("callbacks", plugin.name), f"callback {plugin.name}"
        if isinstance(callback, type):
            check_maker(what, callback, Callback)
            callback = construct(what, callback, plugin.options)
        elif plugin.options:
            raise UserError(f"{what} is no class, so it has no options; leave options out")
        callbacks.append(as_callback(callback))
    return callbacks


@contextmanager
def followed(
    callbacks: Sequence[Callback], config: Config, path: Path
) -> Iterator[Callable[[RoundRecord], None]]:
    """Tell callbacks of a run whose server is another process; yield what takes its records."""

    def after_round(record: RoundRecord) -> None:
        for callback in callbacks:
            callback.after_round(record)

    for callback in callbacks:
        callback.on_run_begin(config, path)
    failure: BaseException | None = None
    try:
        yield after_round
    except BaseException as error:
        failure = error
        raise
    finally:
        for callback in callbacks:
            callback.on_run_end(failure)


class Keeper(Callback):
    """Writes the run directory, as long as no other server has taken the run over.

    Args:
        run: the directory.
        generation: how often the run was resumed.
    """

    def __init__(self, run: RunDir, generation: int) -> None:
        self._run, self._generation = run, generation

    def after_round(self, record: RoundRecord) -> None:
        self._check_owner()
        self._run.append(record)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._check_owner()
        self._run.checkpoint(checkpoint)

    def on_best(self, checkpoint: Checkpoint) -> None:
        self._check_owner()
        self._run.keep_best(checkpoint)

    def _check_owner(self) -> None:
        if self._run.generation != self._generation:
            raise UserError("the run was resumed elsewhere; this server leaves it alone")


class Log(Callback):
    """Logs rounds, failures and checkpoints."""

    def on_run_begin(self, config: Config, path: Path) -> None:
        self._rounds = config.rounds

    def after_round(self, record: RoundRecord) -> None:
        number, clients = record.round, record.clients
        self._failures("failure", "", number, clients.failed)
        self._failures("unevaluated", "evaluation: ", number, clients.unevaluated)
        if record.kept:
            text = f"round {number}: the previous backbone is kept: {record.kept}"
            event(log, logging.INFO, "kept", text, round=number)
        text = f"round {number} of {self._rounds}: {clients.trained} of {clients.asked} clients"
        event(
            log,
            logging.INFO,
            "round",
            f"{text} trained",
            round=number,
            asked=clients.asked,
            trained=clients.trained,
            failed=len(clients.failed),
            kept=record.kept,
        )

    def _failures(self, kind: str, what: str, number: int, failures: Sequence[Failure]) -> None:
        # At INFO: on a console, Troubles says so already.
        alike, said = Counter(failure.reason for failure in failures), set()
        for failure in failures:
            count = alike[failure.reason]
            if failure.reason in said and count > _ALIKE:
                continue  # said with the first of them
            said.add(failure.reason)
            others = f" and {count - 1} others" if count > _ALIKE else ""
            whom = who(failure.client, failure.name) + others
            details = {"node": str(failure.node), "name": failure.name}
            text = f"round {number}: {whom}: {what}{failure.reason}"
            event(log, logging.INFO, kind, text, round=number, **details)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        number = checkpoint.round
        event(log, logging.INFO, "checkpoint", f"round {number}: checkpoint", round=number)


class GiveUp(Callback):
    """Ends a run in which nothing has trained for a few rounds: the next would go as they did.

    Args:
        deployed: whether nodes may come back; then only what clients say themselves counts.
    """

    rounds = 3

    def __init__(self, deployed: bool) -> None:
        self._deployed = deployed
        self._barren: list[RoundRecord] = []

    def after_round(self, record: RoundRecord) -> None:
        failed = [f for f in record.clients.failed if not self._deployed or f.client is not None]
        if record.clients.trained or not failed:
            self._barren = []
            return
        self._barren.append(record)
        if len(self._barren) < self.rounds:
            return
        raise UserError(
            f"nobody trained in rounds {self._barren[0].round} to {record.round}; "
            f"{common_failure(self._barren)}"
        )


class Heartbeat(Callback):
    """Gives a sign of life again and again, in a thread of its own, also within a long round.

    Args:
        beat: what to do; never done twice at once.
    """

    def __init__(self, beat: Callable[[], None]):
        self._beat, self._lock, self._ended = beat, threading.Lock(), threading.Event()
        self._last = -math.inf
        self._thread = threading.Thread(target=self._go, daemon=True, name="heartbeat")

    def on_run_begin(self, config: Config, path: Path) -> None:
        self.beat()
        self._thread.start()

    def after_round(self, record: RoundRecord) -> None:
        self.beat(after=1.0)

    def on_run_end(self, error: BaseException | None) -> None:
        self._ended.set()
        if self._thread.is_alive():  # it is not where the first beat failed
            self._thread.join()

    def beat(self, after: float = 0.0) -> None:
        """Beat now, unless the last time was less than ``after`` seconds ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._last >= after:
                self._beat()
                self._last = now

    def _go(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                self.beat()
            except Exception as error:  # a full disk; the run itself will say so
                log.warning("no sign of life: %s", error)
