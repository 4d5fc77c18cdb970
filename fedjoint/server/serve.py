"""A run, from its first round or its newest checkpoint to its end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.serverapp import Grid
from torch import Tensor

from fedjoint._util.logs import event
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.protocol.arrays import to_tensor
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.initial import fit_initial, read_initial
from fedjoint.runs.record import RoundRecord, common_failure
from fedjoint.server.badges import Badges
from fedjoint.server.best import Best
from fedjoint.server.bundles import mixes
from fedjoint.server.callbacks import Callback, GiveUp, Heartbeat, Keeper, Log, make_callbacks
from fedjoint.server.exclusion import Exclusions
from fedjoint.server.reference import Reference
from fedjoint.server.roster import Roster
from fedjoint.server.round import StateLostError, evaluate_initial, keep_last, run_round
from fedjoint.server.run import Run
from fedjoint.server.stopping import StoppedError
from fedjoint.server.strategy import local_method, make_strategy
from fedjoint.server.trial import try_merge

log = logging.getLogger("fedjoint.server.serve")

_RETURNS = 3  # times that a run goes back to one and the same checkpoint


def serve(  # noqa: PLR0913 (most are of deployed runs alone)
    grid: Grid,
    config: Config,
    run: RunDir,
    *,
    tasks: tuple[Task, ...] | None = None,
    wait: float = 0.0,
    deployed: bool = False,
    badges: Badges | None = None,
    callbacks: Sequence[Callback] = (),
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Tensor]:
    """Run the rounds that are left, from the newest checkpoint of ``run``.

    Where a simulated node dies with private state that is in no checkpoint, the run goes back to
    its newest checkpoint by itself: it ends as if nothing had happened.

    Args:
        grid: reaches the nodes.
        config: the run's configuration.
        run: receives metrics, checkpoints and the final backbone.
        tasks: the tasks, where they have losses or metrics of their own.
        wait: seconds to wait for ``engine.min_nodes`` nodes, at the start and whenever none
            is left.
        deployed: whether nodes have data of their own.
        badges: what belongs to the nodes' keys; None: nodes have none.
        callbacks: hear how the run goes.
        stopping: whether somebody asks a deployed run to stop.

    Returns:
        The final backbone, by name, what does not train of it included.

    Raises:
        UserError: no node can take part, the run directory is damaged, or no client trained in
            any round.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    roster = Roster(config, tasks, wait, deployed, badges)
    callbacks = [*make_callbacks(config.callbacks), *callbacks]
    returns: Counter[int] = Counter()
    while True:
        begun, saved = _begin(grid, config, run, roster, callbacks)
        begun.stopping = stopping
        try:
            return _serve(begun, run, saved)
        except StateLostError as error:
            returns[begun.durable] += 1
            if returns[begun.durable] > _RETURNS:
                why = UserError(
                    f"{error} died, as nodes did {_RETURNS} times before since round "
                    f"{begun.durable}; they may lack memory: lower engine.workers or "
                    "engine.data_mb, and resume the run"
                )
                _fail(begun, run, why)
                raise why from None
            text = f"{error} died with private state: back to round {begun.durable}"
            event(log, logging.WARNING, "back", text, round=begun.durable)


def _begin(
    grid: Grid, config: Config, run: RunDir, roster: Roster, callbacks: Sequence[Callback]
) -> tuple[Run, Checkpoint | None]:
    """Return the run as its newest checkpoint left it, and that checkpoint, if there is one."""
    strategy = make_strategy(config)
    roster.mixed = mixes(strategy, config)
    if run.status != "created":
        run.bump_generation()
    saved, generation = run.latest(), run.generation
    resumed_from = saved.round if saved else 0
    run.truncate(resumed_from if saved else -1)

    def beat() -> None:
        if run.generation == generation:
            run.write_nodes(roster.report())

    own = [Keeper(run, generation), Heartbeat(beat), Log()]
    reference = config.diagnostics.reference
    begun = Run(
        config=config,
        path=run.path,
        id=run.id,
        grid=grid,
        strategy=strategy,
        roster=roster,
        callbacks=[*own, *callbacks, GiveUp(roster.deployed)],
        reference=Reference(reference, config) if reference else None,
        generation=generation,
        resumed_from=resumed_from,
    )
    if saved:
        begun.ledger = saved.ledger
        begun.exclusions = Exclusions.of(run.records())
        for record in run.records():
            if record.evaluation:
                begun.evaluation, begun.evaluated = record.evaluation, record.round
    return begun, saved


def _serve(begun: Run, run: RunDir, saved: Checkpoint | None) -> dict[str, Tensor]:
    """Run the rounds that are left, and close the run directory however that ends."""
    config, first = begun.config, begun.resumed_from + 1
    name, options = local_method(begun.strategy, config)
    run.mark("running", method=name, deployed=begun.roster.deployed)
    kind = "resume" if begun.generation else "start"
    text = f"{kind}: round {first} is next"
    event(log, logging.INFO, kind, text, round=first, generation=begun.generation)
    text = f"strategy {config.strategy.name}, local method {name}"
    details = {"strategy": config.strategy.name, "options": config.strategy.options}
    event(log, logging.INFO, "method", text, **details, method=name, method_options=options)
    failure: BaseException | None = None
    told: list[Callback] = []
    try:
        for callback in begun.callbacks:
            told.append(callback)
            callback.on_run_begin(config, run.path)
        begun.discover()
        run.write_nodes(begun.roster.report())
        if begun.reference:
            begun.reference.check(begun.roster.tasks)
        begun.backbone = begun.roster.layout.flat(_first_backbone(begun, saved))
        if saved:
            begun.merging.state, begun.merging.named = saved.state, saved.backbones
        elif begun.shares:
            begun.merging.begin(begun.backbone)
        if config.output.keep_best:
            begun.best = _best(begun, run)
        if saved is None:
            try_merge(begun)
        if config.evaluate.initial and saved is None:
            evaluate_initial(begun)
        _run_rounds(begun, run, first)
        records = run.records()
        _check_trained(records)
        final = _final(begun, records[-1].round)
        last = final.round
        run.finish(final, records)
        run.mark("done" if last == config.rounds else "stopped")
    except BaseException as error:
        failure = error
        if isinstance(error, StoppedError):
            failure = error = UserError("the run was stopped before its first round; resume it")
        if not isinstance(error, StateLostError):
            _fail(begun, run, error)
        raise error
    finally:
        for callback in told:
            callback.on_run_end(failure)
    text = "the run is done" if last == config.rounds else f"the run was stopped after round {last}"
    event(log, logging.INFO, "end", text, status=run.status, round=last)
    return final.whole


def _run_rounds(begun: Run, run: RunDir, first: int) -> None:
    """Run the rounds that are left, until the last one or a stop.

    Raises:
        UserError: it is to stop, and no round is done.
    """
    try:
        for round in range(first, begun.config.rounds + 1):
            if run_round(begun, round):
                return
    except StoppedError:
        done = [record.round for record in run.records() if record.round]
        if not done:
            raise UserError("the run was stopped in its first round; resume it") from None
        keep_last(begun, done[-1])


def _final(begun: Run, last: int) -> Checkpoint:
    roster = begun.roster
    frozen = {name: to_tensor(array) for name, array in roster.frozen.items()}
    backbones = begun.merging.named
    return Checkpoint(last, begun.named(), {}, begun.ledger, roster.digest, frozen, backbones)


def _fail(begun: Run, run: RunDir, error: BaseException) -> None:
    """Note that the run failed, or was interrupted, unless another server has taken it over."""
    interrupted, why = isinstance(error, KeyboardInterrupt), str(error)
    if interrupted:
        why = "it was interrupted"
    elif not isinstance(error, UserError):
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, Exception):  # and no signal: fedjoint's fault, or a plug-in's
            log.error("unforeseen", exc_info=error)
    level, status = (logging.WARNING, "stopped") if interrupted else (logging.ERROR, "failed")
    event(log, level, "end", f"the run ends: {why}", status=status)
    try:
        if run.generation == begun.generation:
            run.write_nodes(begun.roster.report())
            if interrupted:
                run.mark_interrupted()
            else:
                run.mark("failed")
    except UserError as other:  # a full disk, which is likely why the run fails
        log.error("that the run failed cannot be noted: %s", other)


def _best(begun: Run, run: RunDir) -> Best:
    """Return the best of the rounds that are done; nothing of those that are done again."""
    kept = run.best()
    if kept and kept.round <= begun.resumed_from:
        return Best.of(run.records(), begun.roster.tasks, kept.ledger)
    run.forget_best()
    return Best()


def _check_trained(records: Sequence[RoundRecord]) -> None:
    """Raise a UserError where nothing ever was merged: the backbone is the first one."""
    records = [record for record in records if record.round]
    if any(record.clients.trained for record in records):
        _check_measured(records)
        if all(record.kept for record in records):
            raise UserError(f"no round has merged; the last one: {records[-1].kept}")
        return
    raise UserError(
        f"no client trained in any of {len(records)} rounds; {common_failure(records)}; fix that "
        "and start a new run"
    )


def _check_measured(records: Sequence[RoundRecord]) -> None:
    """Raise a UserError where rounds were evaluated, and no metric ever was defined."""
    evaluations = [record.evaluation for record in records if record.evaluation]
    values = [v for each in evaluations for split in each.values() for v in split.values()]
    if values and all(value is None for value in values):
        if any(record.clients.unevaluated for record in records):
            raise UserError(f"no client was ever evaluated; {common_failure(records)}")
        raise UserError(
            f"no metric is defined in any of {len(evaluations)} evaluations: no client has "
            "labelled examples that the metrics can be computed of; give data, or another metric"
        )


def _first_backbone(begun: Run, saved: Checkpoint | None) -> dict[str, Tensor]:
    """Return what the first round starts with.

    Raises:
        UserError: the nodes have another backbone than the checkpoint, or than what is to be its
            first.
    """
    if saved is None and (initial := begun.config.model.initial):
        return fit_initial(Path(initial), read_initial(Path(initial)), begun.roster.layout)
    if saved is None:
        return {n: to_tensor(a) for n, a in begun.roster.initial.items()}
    if not saved.fits(begun.roster.layout):
        raise UserError("the nodes' backbone differs from the checkpoint's: give them its settings")
    if saved.digest != begun.roster.digest:
        raise UserError(
            "the nodes' frozen weights differ from those that the run began with: give them the "
            "file from which these came"
        )
    return saved.backbone
