"""The server's side of a run: any strategy on any grid, recorded in a run directory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from fedjoint._util.logs import event
from fedjoint._util.wording import who
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.loading import construct, find
from fedjoint.model.tasks import Task
from fedjoint.protocol.arrays import to_record, to_tensor
from fedjoint.runs.directory import Checkpoint, RunDir
from fedjoint.server.heartbeat import Heartbeat
from fedjoint.server.strategy import JointStrategy
from fedjoint.training.method import make_method

log = logging.getLogger("fedjoint.server.serve")

OnRound = Callable[[dict[str, Any]], None]


def make_strategy(config: Config) -> JointStrategy:
    """Return the configured strategy, once it and the local method are known to be in order.

    Raises:
        UserError: a name or an option is wrong, of the strategy or of the local method; or the
            two, or what else is configured, do not go together.
    """
    name, local = config.strategy.name, config.local
    strategy = construct(f"strategy {name}", find("strategies", name), config.strategy.options)
    if not isinstance(strategy, JointStrategy):
        raise UserError(f"strategy {name}: {type(strategy).__name__} is no fedjoint.JointStrategy")
    if local.method and strategy.method != "joint":
        raise UserError(
            f"local.method = {local.method!r}: strategy {name} is not itself without its own local "
            f"method, {strategy.method}; leave local.method out (options of {strategy.method} go "
            "into strategy.options), or set strategy.name = 'fedavg'"
        )
    try:
        method = make_method(*strategy.local_method(config))
    except UserError as error:
        raise UserError(f"{'local.options: ' if local.method else ''}{error}") from None
    if local.method and method.half_of:
        raise UserError(
            f"local.method = {local.method!r} is one half of strategy {method.half_of}: set "
            f"strategy.name = {method.half_of!r}, and leave local.method out"
        )
    strategy.check_config(config, method)
    return strategy


def serve(
    grid: Grid,
    config: Config,
    run: RunDir,
    *,
    tasks: tuple[Task, ...] | None = None,
    wait: float = 0.0,
    deployed: bool = False,
    on_round: OnRound = lambda record: None,
) -> dict[str, Tensor]:
    """Run the rounds that are left, from the newest checkpoint of ``run``.

    Args:
        grid: reaches the nodes.
        config: the run's configuration.
        run: receives metrics, checkpoints and the final backbone.
        tasks: the tasks, where they have losses or metrics of their own.
        wait: seconds to wait for ``engine.min_nodes`` nodes, at the start and whenever none
            is left.
        deployed: whether nodes have data of their own.
        on_round: also receives the record of every round.

    Returns:
        The final backbone, by name.

    Raises:
        UserError: no node can take part, the run directory is damaged, or no client trained in
            any round.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    strategy = make_strategy(config)
    if run.info["status"] != "created":
        run.bump_generation()
    found = run.latest()
    first = found.round + 1 if found else 1
    run.truncate(first - 1)

    generation = run.generation

    def still_ours() -> None:
        if run.generation != generation:
            raise UserError("the run was resumed elsewhere; this server leaves it alone")

    def beat() -> None:
        if run.generation == generation:
            run.write_nodes(strategy.roster.report())

    heart = Heartbeat(beat)

    def record(values: dict[str, Any]) -> None:
        still_ours()
        clients = dict(values["clients"])
        for kind in ("failed", "unevaluated"):
            clients[kind] = [f | {"name": strategy.roster.name(f["node"])} for f in clients[kind]]
        values = values | {"clients": clients}
        run.append(values)
        heart.beat(after=1.0)
        _log_round(values, config.rounds)
        on_round(values)

    def checkpoint(round: int, backbone: dict[str, Tensor]) -> None:
        still_ours()
        run.checkpoint(round, backbone, strategy.state, strategy.ledger)
        event(log, logging.INFO, "checkpoint", f"round {round}: checkpoint", round=round)

    strategy.bind(
        config,
        run=run.path,
        tasks=tasks,
        wait=wait,
        deployed=deployed,
        first_round=first,
        generation=generation,
        on_round=record,
        on_checkpoint=checkpoint,
    )
    run.mark("running", method=strategy.local_method(config)[0])
    kind = "resume" if generation else "start"
    text = f"{kind}: round {first} is next"
    event(log, logging.INFO, kind, text, round=first, generation=generation)
    try:
        with heart:
            heart.beat()
            strategy.discover(grid)
            if strategy.reference:
                strategy.reference.check(strategy.roster.tasks)
            heart.beat()
            backbone = _first_backbone(strategy, found)
            left = config.rounds - first + 1
            if left > 0:
                strategy.start(grid, to_record(backbone), left, timeout=config.strategy.timeout)
                backbone = {
                    n: t.clone() for n, t in strategy.roster.layout.views(strategy.backbone).items()
                }
        records = run.records()
        _check_trained(records)
    except BaseException as error:
        why = str(error)
        if not isinstance(error, UserError):
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, Exception):  # and no signal: fedjoint's fault, or a plug-in's
                log.exception("unforeseen")
        event(log, logging.ERROR, "end", f"the run ends: {why}", status="failed")
        if run.generation == generation:
            run.write_nodes(strategy.roster.report())
            run.mark("failed")
        raise
    run.finish(config.rounds, backbone, records)
    run.mark("done")
    event(log, logging.INFO, "end", "the run is done", status="done", round=config.rounds)
    return backbone


def _check_trained(records: Sequence[Mapping[str, Any]]) -> None:
    """Raise a UserError where nobody ever trained: the backbone is the first one."""
    if any(record["clients"]["trained"] for record in records):
        return
    reasons = Counter(f["reason"] for record in records for f in record["clients"]["failed"])
    ((why, count),) = reasons.most_common(1) or [("no client was asked to", 0)]
    raise UserError(
        f"no client trained in any of {len(records)} rounds; of {reasons.total()} failures "
        f"{count} say: {why}; mend that and start a new run"
    )


def _first_backbone(strategy: JointStrategy, found: Checkpoint | None) -> dict[str, Tensor]:
    """Return what the first round starts with.

    Raises:
        UserError: the nodes have another backbone than the checkpoint.
    """
    if found is None:
        return {n: to_tensor(a) for n, a in strategy.roster.initial.items()}
    if {n: tuple(t.shape) for n, t in found.backbone.items()} != strategy.roster.layout.shapes:
        raise UserError("the nodes' backbone differs from the checkpoint's: give them its settings")
    strategy.state, strategy.ledger = dict(found.state), found.ledger
    return found.backbone


def _log_round(record: dict[str, Any], rounds: int) -> None:
    number, clients = record["round"], record["clients"]
    for failure in clients["failed"]:
        details = {"node": str(failure["node"]), "name": failure["name"]}
        at = who(failure["client"], failure["name"])
        text = f"round {number}: {at}: {failure['reason']}"
        # On a console, the progress bar says so already.
        event(log, logging.INFO, "failure", text, round=number, **details)
    text = f"round {number} of {rounds}: {clients['trained']} of {clients['asked']} clients trained"
    details = {name: clients[name] for name in ("asked", "trained")}
    details |= {"failed": len(clients["failed"]), "kept": record["kept"]}
    event(log, logging.INFO, "round", text, round=number, **details)
