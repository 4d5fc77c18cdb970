"""The base of every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import ClassVar

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor

from fedjoint.config.schema import Config, EngineConfig
from fedjoint.options import make_plugin
from fedjoint.problem import Problem
from fedjoint.registry import load_object
from fedjoint.runs.directory import RunDir
from fedjoint.server.callbacks import Callback
from fedjoint.server.serve import serve

#: Returns the ClientApp that hosts a problem's clients; named, as the library imports no client.
CLIENT_APP = "fedjoint.clients.app:make_app"

MakeApp = Callable[[], ClientApp]


class Engine:
    """Base class of what executes rounds. A plug-in implements :meth:`grid`.

    Options of one's own are the arguments of ``__init__`` after ``config``.

    Args:
        config: the ``engine`` table.

    Attributes:
        apart: whether server and nodes are processes that build the problem by themselves, so
            that none can be passed from Python.
    """

    apart: ClassVar[bool] = False

    def __init__(self, config: EngineConfig) -> None:
        self.config = config

    def grid(self, make_app: MakeApp) -> AbstractContextManager[Grid]:
        """Return what starts nodes, yields the grid that reaches them, and stops them.

        Args:
            make_app: makes the ClientApp of a node; may be pickled.

        Raises:
            UserError: nodes cannot start; the line says why.
        """
        raise NotImplementedError

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep up what several runs share, for the runs inside."""
        yield

    def execute(
        self, config: Config, problem: Problem, run: RunDir, callbacks: Sequence[Callback]
    ) -> dict[str, Tensor]:
        """Run the rounds that are left; return the final backbone, by name.

        Args:
            config: the run's configuration.
            problem: its tasks, backbone and data.
            run: its directory.
            callbacks: hear how the run goes.

        Raises:
            UserError: nodes cannot start, or the run fails.
        """
        with self.grid(partial(_make_app, problem)) as grid:
            return serve(grid, config, run, tasks=tuple(problem.tasks), callbacks=callbacks)


def make_engine(config: EngineConfig) -> Engine:
    """Return the engine that is named.

    Raises:
        UserError: there is none, an option is wrong, or it is no Engine.
    """
    return make_plugin("engines", config.name, config.options, Engine, config)


def _make_app(problem: Problem) -> ClientApp:
    make: Callable[..., ClientApp] = load_object(CLIENT_APP)
    return make(problem, write_through=False)
