"""Ray's own processes: started with an engine, or early, while a command imports PyTorch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import ray
from ray._private import services

from fedjoint._util.cores import allowed_cores
from fedjoint._util.interrupt import held
from fedjoint.errors import UserError

if TYPE_CHECKING:
    from fedjoint.config.schema import EngineConfig

#: Bytes up to which a message's parts travel in it: beyond, reading them in place is faster.
INLINE = 1 << 20

_early: list[_Early] = []


def start(config: EngineConfig) -> None:
    """Start Ray on this machine, or join the cluster of ``engine.address``.

    Raises:
        UserError: there is no such cluster.
    """
    if config.address:
        try:
            ray.init(address=config.address, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"engine.address = {config.address!r}: {error}") from None
    else:
        # "local": never a cluster that happens to run here, or did and left its address behind.
        with _on_loopback():
            ray.init(
                address="local",
                num_cpus=allowed_cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _system_config={"max_direct_call_object_size": INLINE},
            )


@contextmanager
def up(config: EngineConfig) -> Iterator[None]:
    """Have Ray up inside, for tasks rather than for nodes.

    Raises:
        UserError: it cannot be reached.
    """
    own = not ray.is_initialized()
    if own:
        with held():
            start(config)
    try:
        yield
    finally:
        if own:
            with held():
                ray.shutdown()


@contextmanager
def started_early(config: EngineConfig) -> Iterator[None]:
    """Have Ray come up on this machine while what is done inside begins.

    That takes seconds in which this process has little to do. Ray is stopped in the end. Where it
    does not start, the engine tries again, and says why.
    """
    if ray.is_initialized() or config.address:
        yield
        return
    early = _Early(config)
    _early.append(early)
    try:
        early.start()
        yield
    finally:
        with held():
            _early.remove(early)
            if early.ident:  # it has begun
                early.up.wait()
            ray.shutdown()
            early.over.set()


def wait_for_early() -> None:
    """Wait until Ray is up that was started early, if it was."""
    for early in _early:
        early.up.wait()


class _Early(threading.Thread):
    """Starts Ray, and lives as long: the kernel kills Ray's processes with the thread they are of.

    Args:
        config: the engine's settings.
    """

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(name="fedjoint-ray", daemon=True)
        self._config = config
        self.up, self.over = threading.Event(), threading.Event()

    def run(self) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)  # it warns of being in a thread
        try:
            start(self._config)
        except Exception as error:  # whatever keeps Ray from starting
            logging.getLogger("fedjoint").debug("Ray did not start early: %s", error)
        finally:
            self.up.set()
        self.over.wait()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Keep Ray from listening where other machines reach it.

    Ray turns the address of the loopback into one of the network, and then listens on all.
    """
    own = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = own
