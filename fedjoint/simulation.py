"""Run a scenario on one machine or a Ray cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedjoint._util.logs import event
from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.config.section import Plugin, Section
from fedjoint.data.unchanged import EVERYONE, check_unchanged
from fedjoint.engines.base import Engine, make_engine
from fedjoint.errors import UserError
from fedjoint.initial import check_initial
from fedjoint.model.parts import Parts
from fedjoint.node.node import best_device
from fedjoint.problem import Problem, build_problem, own_groups, settled
from fedjoint.registry import anchored
from fedjoint.runs.directory import RunDir
from fedjoint.runs.initial import fit_initial, read_initial
from fedjoint.runs.result import RunResult
from fedjoint.runs.same_model import check_same_model
from fedjoint.runs.whole import check_extendable, check_whole
from fedjoint.server.callbacks import AnyCallback, Callback, as_callback
from fedjoint.server.plugins import check_plugins
from fedjoint.server.reference import Reference
from fedjoint.server.troubles import Troubles
from fedjoint.training.balance import make_balance
from fedjoint.training.choice import choose_path, packed

log = logging.getLogger("fedjoint")

#: Options of sources and backbones that name files.
_PATHS = ("path", "test_path", "tokenizer")


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
    if not isinstance(config, Config):
        config = check(config)
        if problem is not None:
            _say_what_is_unused(config)
    everyone = _everyone(callbacks)
    check_plugins(config)
    config = _anchored(config)
    engine, own = make_engine(config.engine), problem is not None
    if config.diagnostics.reference:
        Reference(config.diagnostics.reference, config, own)
    problem = _problem(config, problem, engine)
    _check_reference(config, problem)
    # What every node would stumble over is found before there is a run.
    make_balance(config.balance, problem.tasks, [task.name for task in problem.tasks])
    models = problem.models(config)
    if initial := config.model.initial:
        check_initial(config, problem, models[""])
        fit_initial(Path(initial), read_initial(Path(initial)), models[""].layout())
    # Groups of clients have models of their own, which one choice need not fit.
    single = models.get("")
    config = packed(problem, single, config) if single else config
    choice = choose_path(problem, single, config, best_device()) if single else None
    if choice:
        config = choice.applied(config)
    run = RunDir.create(Path(config.output.dir), config.name, config, own_problem=own)
    run.note_clients(len(problem.data.sizes))
    if not problem.groups:
        run.note_inputs(problem.reads.noted().model_dump(mode="json"))
    if choice:
        run.note_path(choice.why)
        text = f"local.path = {choice.path}, engine.threads = {choice.threads}: {choice.why}"
        event(log, logging.INFO, "path", text, path=choice.path, threads=choice.threads)
    with _marked(run):
        backbone = engine.execute(config, problem, run, everyone)
    return RunResult(run.path, config, run.records(), backbone)


@contextmanager
def _marked(run: RunDir) -> Iterator[None]:
    """Note where a run is interrupted before its server has begun, or after it is gone."""
    try:
        yield
    except KeyboardInterrupt:
        if run.status != "done":
            run.mark_interrupted()
        raise


def resume(
    path: str | Path,
    problem: Problem | None = None,
    *,
    rounds: int | None = None,
    callbacks: Sequence[AnyCallback] = (),
) -> RunResult:
    """Continue a run from its newest checkpoint, to the same end as without interruption.

    A run that is done stays as it is, and its result is returned, unless it is to have more rounds.

    Args:
        path: the run directory.
        problem: the run's own problem, where it did not come from the configuration.
        rounds: how many rounds the run is to have in all; None: as configured.
        callbacks: hear how the run goes: objects, or functions called with every record.

    Raises:
        UserError: it is no run directory, a file of it is missing, damaged or of another run, or
            the data have changed; then nothing was written.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"the run is a {type(path).__name__}: give the path of its directory")
    if not isinstance(rounds, int | None):
        raise UserError(f"rounds = {rounds!r}: give a whole number")
    run = RunDir.open(Path(path))
    run.described(problem)
    config, whole = run.config(), check_whole(run)
    if rounds is not None:
        check_extendable(run, whole, rounds)
        config = config.model_copy(update={"rounds": rounds})
    if whole.status == "done" and whole.final and whole.final.round >= config.rounds:
        return RunResult(run.path, config, whole.records, whole.final.whole)
    everyone = _everyone(callbacks)
    engine = make_engine(config.engine)
    problem = _problem(config, problem, engine)
    if run.state.exists():
        known = run.states.fingerprints()
        check_unchanged(problem.data, known, central=problem.central)
    models = problem.models(config)
    layouts = {name: model.layout() for name, model in models.items()}
    names = problem.group_names
    own = [models[names[place]] for place in problem.member.tolist()]
    check_same_model(run, whole, Parts(layouts, config.model.common).layout, own)
    if rounds is not None:
        run.change({"rounds": rounds})
    with _marked(run):
        backbone = engine.execute(config, problem, run, everyone)
    return RunResult(run.path, config, run.records(), backbone)


def _say_what_is_unused(config: Config) -> None:
    if unused := sorted(config.data.model_fields_set - {"target_scale", "clients_are_tasks"}):
        names = ", ".join(f"data.{name}" for name in unused)
        log.warning("the problem brings its own data: %s and the like are not used", names)


def _check_reference(config: Config, problem: Problem) -> None:
    """Make sure that the run that is compared with was made from the same data."""
    path = config.diagnostics.reference
    run = RunDir.open(Path(path)) if path else None
    if run is None or not run.state.exists():
        return
    known = {id: own for id, own in run.states.fingerprints().items() if id != EVERYONE}
    try:
        check_unchanged(problem.data, known)
    except UserError as error:
        raise UserError(f"diagnostics.reference: {path}: {error}") from None


def _everyone(callbacks: Sequence[AnyCallback]) -> list[Callback]:
    """Return the callbacks, and one that says what goes wrong where none of them does."""
    if not isinstance(callbacks, Sequence):
        raise UserError(f"callbacks are a {type(callbacks).__name__}: give a list, such as [f]")
    everyone = [as_callback(callback) for callback in callbacks]
    told = any(isinstance(callback, Troubles) for callback in everyone)
    return everyone if told else [Troubles(), *everyone]


def _anchored(config: Config) -> Config:
    """Return ``config`` with the files that it names by their whole paths.

    They are on this machine, and the run may be resumed from another folder.
    """
    found: Config = _with_anchors(config)
    local, model, problem = found.local, found.model, found.problem
    if local.method:
        local = local.model_copy(update={"method": anchored(local.method)})
    model = model.model_copy(update={"initial": _whole(model.initial)})
    update = {"local": local, "model": model, "problem": problem and anchored(problem)}
    return found.model_copy(update=update)


def _whole(paths: Any) -> Any:
    """Return the paths in a text, a list or a table that exist here by their whole names."""
    if isinstance(paths, list):
        return [_whole(path) for path in paths]
    if isinstance(paths, dict):
        return {name: _whole(path) for name, path in paths.items()}
    try:
        there = isinstance(paths, str) and Path(paths).exists()
    except (OSError, ValueError):  # too long a name, a NUL: the source says so
        there = False
    return str(Path(paths).absolute()) if there else paths


def _with_anchors(value: Any) -> Any:
    """Return part of a configuration with the files of its plug-ins by their whole paths."""
    if isinstance(value, list):
        return [_with_anchors(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_anchors(item) for key, item in value.items()}
    if not isinstance(value, Section):
        return value
    update = {name: _with_anchors(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Plugin):
        options = {n: _whole(v) if n in _PATHS else v for n, v in value.options.items()}
        update |= {"name": anchored(value.name), "options": options}
    return value.model_copy(update=update)


def _problem(config: Config, problem: Problem | None, engine: Engine) -> Problem:
    if not isinstance(problem, Problem | None):
        raise UserError(f"the problem is a {type(problem).__name__}: give a fedjoint.Problem")
    if problem is None:
        return build_problem(config)
    if engine.apart:
        raise UserError(
            f"engine {config.engine.name!r} starts processes of its own: name your problem in the "
            "config (problem = 'module:function') instead of passing it"
        )
    own = problem.groups.keys()
    if config.model.groups and not (own and own <= config.model.groups.keys()):
        raise own_groups()
    return settled(problem, config)
