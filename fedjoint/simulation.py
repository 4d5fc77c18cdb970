"""Run a scenario on one machine or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.engines.inline import InlineGrid
from fedjoint.engines.local import simulated_context
from fedjoint.engines.session import ray_workers
from fedjoint.errors import UserError
from fedjoint.node.store import StateStore
from fedjoint.problem import Problem, build_problem
from fedjoint.registry import anchored, load_object
from fedjoint.runs.directory import RunDir
from fedjoint.runs.record import RoundRecord
from fedjoint.server.callbacks import AnyCallback, Callback, as_callback
from fedjoint.server.reference import Reference
from fedjoint.server.serve import serve
from fedjoint.server.strategy import make_strategy
from fedjoint.training.balance import make_balance

#: Returns the ClientApp that hosts a problem's clients; named, as the library imports no client.
CLIENT_APP = "clients.app:make_app"


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Attributes:
        path: the run directory.
        config: the resolved configuration.
        records: one per round.
        backbone: the final shared tensors, by name.
    """

    path: Path
    config: Config
    records: list[RoundRecord]
    backbone: dict[str, Tensor]

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The last evaluation: split -> task -> value."""
        done = [record.evaluation for record in self.records if record.evaluation]
        return done[-1] if done else {}

    def heads(self) -> dict[int, dict[str, Tensor]]:
        """Return the private state of every client that trained, by id."""
        store = StateStore(RunDir(self.path).state)
        newest = store.newest()
        return store.read(list(newest), list(newest.values()))


def simulate(
    config: Config | Mapping[str, Any],
    problem: Problem | None = None,
    *,
    callbacks: Sequence[AnyCallback] = (),
) -> RunResult:
    """Run a scenario in a new run directory.

    Args:
        config: the scenario, or a tree of settings that :func:`fedjoint.config.load.check` takes.
        problem: your own tasks, backbone and data; by default what ``config`` describes.
        callbacks: hear how the run goes: objects, or functions called with every record.

    Raises:
        UserError: the configuration, the data or the engine is at fault.
    """
    config = _anchored(config if isinstance(config, Config) else check(config))
    everyone = [as_callback(callback) for callback in callbacks]
    make_strategy(config)  # a misspelt option is found before any data is read
    own = problem is not None
    if config.diagnostics.reference:
        Reference(config.diagnostics.reference, config, own)
    problem = _problem(config, problem)
    if problem:  # what every node would stumble over is found before there is a run
        make_balance(config.balance, problem.tasks, [task.name for task in problem.tasks])
        problem.model(config)
    run = RunDir.create(Path(config.output.dir), config.name, config, own_problem=own)
    return _execute(config, problem, run, everyone)


def resume(
    path: str | Path,
    problem: Problem | None = None,
    *,
    callbacks: Sequence[AnyCallback] = (),
) -> RunResult:
    """Continue a run from its newest checkpoint, to the same end as without interruption.

    Args:
        path: the run directory.
        problem: the run's own problem, where it did not come from the configuration.
        callbacks: hear how the run goes: objects, or functions called with every record.

    Raises:
        UserError: it is no run directory, or it is damaged.
    """
    run = RunDir.open(Path(path))
    run.described(problem)
    config = run.config()
    everyone = [as_callback(callback) for callback in callbacks]
    return _execute(config, _problem(config, problem), run, everyone)


def _anchored(config: Config) -> Config:
    """Return ``config`` with the files that nodes load named by their whole paths.

    They are on this machine, and the run may be resumed from another folder.
    """
    local, model, problem = config.local, config.model, config.problem
    if local.method:
        local = local.model_copy(update={"method": anchored(local.method)})
    model = model.model_copy(update={"backbone": anchored(model.backbone)})
    found = {"local": local, "model": model, "problem": problem and anchored(problem)}
    return config.model_copy(update=found)


def _problem(config: Config, problem: Problem | None) -> Problem | None:
    if config.engine.name == "flower":
        if problem is not None:
            raise UserError(
                "engine 'flower' starts processes of its own: name your problem in the config "
                "(problem = 'module:function') instead of passing it"
            )
        return None
    return problem or build_problem(config)


def _execute(
    config: Config, problem: Problem | None, run: RunDir, callbacks: Sequence[Callback]
) -> RunResult:
    if problem is None:
        from fedjoint.engines.flower import run_flower

        backbone = run_flower(config, run, callbacks)
        return RunResult(run.path, config, run.records(), backbone)
    make_app = partial(_make_app, problem)
    tasks = tuple(problem.tasks)
    if config.engine.name == "inline":
        grid = InlineGrid(make_app(), simulated_context(1, 1), config.engine.threads)
        backbone = serve(grid, config, run, tasks=tasks, callbacks=callbacks)
    else:
        from fedjoint.engines.ray import RayGrid

        with ray_workers(config.engine) as workers:
            nodes = RayGrid(workers, make_app)
            backbone = serve(nodes, config, run, tasks=tasks, callbacks=callbacks)
    return RunResult(run.path, config, run.records(), backbone)


def _make_app(problem: Problem) -> Any:
    make: Callable[..., Any] = load_object(CLIENT_APP)
    return make(problem, write_through=False)
