"""THE ROUND: plan, send, collect, merge, evaluate, record, checkpoint."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from fedjoint._util.wording import plain
from fedjoint.errors import UserError
from fedjoint.model.tasks import measures
from fedjoint.protocol.elsewhere import LostError
from fedjoint.protocol.evaluation import EvaluateReply
from fedjoint.protocol.requests import Asked
from fedjoint.protocol.training import Terms
from fedjoint.protocol.wire import NODE_DIED
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.record import (
    Failure,
    Metrics,
    Participation,
    RoundRecord,
    Seconds,
    Steps,
    Traffic,
)
from fedjoint.server import evaluation
from fedjoint.server.agreement import agreement_within
from fedjoint.server.best import Best
from fedjoint.server.by_part import diagnose_parts, moved_buffers
from fedjoint.server.callbacks import Callback, Snapshot
from fedjoint.server.collect import Collector, together
from fedjoint.server.dealing import dealt, dealt_plan
from fedjoint.server.patience import Patience
from fedjoint.server.plan import Plan, plan_evaluation, plan_training
from fedjoint.server.roster import Seat
from fedjoint.server.run import Broadcast, Run
from fedjoint.server.steps import MergeError, NotFiniteError
from fedjoint.server.updates import Updates
from fedjoint.server.weights import most_of_a_node, weigh

log = logging.getLogger("fedjoint.server.round")

_LATE = "no reply within the round's time limit"
_CLIP = 10.0  # times the round's median length: the default of strategy.clip on real machines
_NAMED = 1000  # most clients that a round's record names


class StateLostError(Exception):
    """A simulated node died, and with it the private state that it had not saved."""


def run_round(run: Run, round: int) -> bool:
    """Run one round, and say whether a callback wants it to be the last.

    Raises:
        UserError: there are too few nodes or clients, or the strategy cannot broadcast.
        StateLostError: a node died; the run has to go back to its newest checkpoint.
        StoppedError: somebody asked the run to stop; the round before is its last.
    """
    began = time.perf_counter()
    plan, broadcast, sent, groups, collected = _train(run, round)

    merging = time.perf_counter()
    merged = _merge(run, plan, groups)
    if merged.step is not None:
        run.backbone = run.backbone + merged.step
    if merged.kept is None:
        run.ledger.count(collected.trained, round, collected.client_losses())

    evaluating = time.perf_counter()
    evaluated = _evaluate(run, round)
    found = _within(run, plan, collected) | _transfer(run, round, evaluated)
    diagnostics = (merged.diagnostics or {}) | found if found else merged.diagnostics

    ended, trained = time.perf_counter(), collected.trained
    objective, losses = collected.losses()
    train = min(collected.node_seconds, merging - sent)  # no node was at work longer than we waited
    record = RoundRecord(
        round=round,
        objective=objective,
        loss=losses,
        evaluation=evaluated.metrics,
        spread=evaluated.spread,
        own=evaluated.own,
        clients=Participation(
            asked=plan.clients,
            trained=len(trained),
            ids=tuple(trained.tolist()) if plan.clients <= _NAMED else None,
            failed=_named(run, collected.failed),
            unevaluated=_named(run, evaluated.failed),
            untrained=evaluated.untrained,
            clipped=_named(run, collected.clipped),
        ),
        steps=Steps(collected.work / len(trained) if len(trained) else None, collected.work),
        kept=merged.kept,
        fallback=collected.fallback,
        bytes=Traffic(_bytes_down(plan, broadcast), collected.bytes_up),
        seconds=Seconds(
            broadcast=sent - began,
            train=train,
            gather=max(0.0, merging - sent - train),
            merge=evaluating - merging,
            evaluate=ended - evaluating,
            round=ended - began,
            work=collected.work_seconds,
        ),
        diagnostics=diagnostics,
        strategy=run.merging.report(),
    )
    last = _tell(run, record, evaluated) or round == run.config.rounds or run.stopping()
    best = run.best is not None and _is_best(run.best, run, evaluated)
    first = run.roster.deployed and not run.durable  # its server may be killed soon
    if last or best or first or round % run.config.output.checkpoint_every == 0:
        _checkpoint(run, round, best=best)
    return last


class _Trained(NamedTuple):
    """What a round asked for, and the replies to it.

    Attributes:
        plan: who was to do what.
        broadcast: what each group of clients was sent.
        sent: when.
        groups: the replies by group.
        collected: all of them.
    """

    plan: Plan
    broadcast: Mapping[str, Broadcast]
    sent: float
    groups: dict[str, Collector]
    collected: Collector


def _train(run: Run, round: int) -> _Trained:
    """Plan, send and collect; again, where everybody was away.

    Raises:
        UserError: there are too few nodes or clients, or the strategy cannot broadcast.
        StateLostError: a node died.
        StoppedError: somebody asked the run to stop.
    """
    if run.roster.deployed:
        run.before = copy.deepcopy(run.merging.state)
    patience = Patience(run)
    while True:
        run.discover()
        run.merging.clear_reports()
        plan = plan_training(
            run.config,
            run.roster,
            round,
            run.strategy,
            run.ledger,
            run.evaluation,
            run.exclusions,
        )
        plan = dealt_plan(run.merging, plan)
        broadcast = run.broadcast(round)
        sent = time.perf_counter()
        groups = _collect(run, plan, sent, run.train(plan, broadcast))
        collected = together(groups.values())
        if not patience.waits(round, collected):
            return _Trained(plan, broadcast, sent, groups, collected)


def _within(run: Run, plan: Plan, collected: Collector) -> dict[str, Any]:
    """Return how the tasks of single clients agree, in rounds in which that is due."""
    if not (plan.within and run.shares):
        return {}
    names = tuple(task.name for task in run.roster.tasks)
    return {"within": agreement_within(collected.within(), names)}


def _transfer(run: Run, round: int, evaluated: _Evaluated) -> dict[str, Any]:
    """Return what each task gains over the reference run, where there is one."""
    if not (run.reference and evaluated.metrics):
        return {}
    test = evaluated.metrics["test"]
    return {"transfer": run.reference.transfer(round, test, run.roster.tasks)}


def _bytes_down(plan: Plan, sent: Mapping[str, Broadcast]) -> int:
    return sum(sent[group].bytes_for(asked) for (_, group), asked in plan.asked.items())


def _is_best(best: Best, run: Run, evaluated: _Evaluated) -> bool:
    return bool(evaluated.metrics) and best.beaten(evaluated.metrics or {}, run.roster.tasks)


def evaluate_initial(run: Run) -> None:
    """Evaluate the backbone that the first round starts with; the record is that of round 0.

    Raises:
        UserError: the strategy cannot broadcast.
        StateLostError: a node died.
    """
    began = time.perf_counter()
    evaluated = _evaluate(run, 0)
    took = time.perf_counter() - began
    record = RoundRecord(
        round=0,
        objective=None,
        loss={},
        evaluation=evaluated.metrics,
        spread=evaluated.spread,
        own=evaluated.own,
        clients=Participation(0, 0, (), unevaluated=_named(run, evaluated.failed)),
        steps=Steps(None, 0),
        kept=None,
        fallback=None,
        bytes=Traffic(0, 0),
        seconds=Seconds(0.0, 0.0, 0.0, 0.0, took, took),
        diagnostics=None,
    )
    _tell(run, record, evaluated)


def _tell(run: Run, record: RoundRecord, evaluated: _Evaluated) -> bool:
    """Tell all that follows the run of a round; return whether one wants it to be the last."""
    run.exclusions.note(record)
    # Copied, as a callback may do to the record what it likes.
    if evaluated.metrics:
        run.evaluation, run.evaluated = copy.deepcopy(evaluated.metrics), record.round
    snapshot = Snapshot(
        record.round,
        run.named,
        tuple(measures(run.roster.tasks)),
        evaluated.clients,
        evaluated.values,
    )
    for callback in run.callbacks:
        callback.on_snapshot(snapshot)
    stops = [_stops(callback, record) for callback in run.callbacks]
    return any(stops)


def _stops(callback: Callback, record: RoundRecord) -> bool:
    """Tell a callback of a round; return whether it wants that to be the last."""
    try:
        stop = callback.after_round(record)
    except StopIteration:
        return True
    # A function may return what it is not asked for: only True stops the run.
    return isinstance(stop, bool | np.bool_) and bool(stop)


def _collect(run: Run, plan: Plan, sent: float, replies: Iterable[Message]) -> dict[str, Collector]:
    """Check the replies as they arrive; return them by group.

    Args:
        run: the run.
        plan: what was asked for.
        sent: when.
        replies: to that.

    Raises:
        StateLostError: a node died.
    """
    collectors = {
        group: Collector(
            Terms(
                layout=layout,
                tasks=tuple(task.name for task in run.roster.tasks),
                reduce=plan.reduce,
                shares=run.shares,
                compression=run.config.strategy.compression,
                within=plan.within,
                deviations=plan.deviations,
            ),
            plan.compared,
        )
        for group, layout in run.roster.parts.groups.items()
    }
    silent = dict(plan.asked)
    for reply in _alive(run, replies):
        seat = node, group = _seat(reply)
        if seat in plan.asked:
            if not reply.has_error():
                run.roster.seen[node] = time.time()
            collectors[group].add(node, plan.asked[seat], reply)
            silent.pop(seat, None)
    for node, group in silent:
        collectors[group].fail(node, _LATE)
    clip, waited = run.config.strategy.clip, time.perf_counter() - sent
    for collector in collectors.values():
        collector.settle(_CLIP if clip is None and run.roster.deployed else clip or 0.0)
        took = {block: min(s, waited) for block, s in collector.block_seconds.items()}
        run.roster.costs |= took
    if any(collector.failed for collector in collectors.values()):
        _reweigh(run, list(collectors.values()))
    return collectors


def _seat(reply: Message) -> Seat:
    """Return the node that replies, and the group of its clients that the reply is about."""
    return reply.metadata.src_node_id, reply.metadata.group_id


def _reweigh(run: Run, collectors: Sequence[Collector]) -> None:
    """Weigh those that trained anew, of all groups together."""
    trained = np.sort(np.concatenate([collector.trained for collector in collectors]))
    weights = _weigh(run, trained)
    for collector in collectors:
        collector.reweigh(trained, weights)


def _weigh(run: Run, ids: np.ndarray) -> np.ndarray:
    chosen = np.searchsorted(run.roster.people.ids, ids)
    return weigh(run.roster, chosen, run.strategy.robust)


@dataclass(frozen=True)
class _Merged:
    """What became of the updates of a round.

    Attributes:
        step: ``[P + B]`` of the backbone; None where it stays as it is.
        kept: why it does, where it should not.
        diagnostics: how much the updates agree.
    """

    step: Tensor | None = None
    kept: str | None = None
    diagnostics: dict[str, Any] | None = None


def _merge(run: Run, plan: Plan, groups: Mapping[str, Collector]) -> _Merged:
    some = {name: collected for name, collected in groups.items() if len(collected.trained)}
    updates: dict[str, Updates] = {}
    try:
        with run.merging.all_or_none():
            if run.shares:
                _check_enough(run, some)
                updates = {n: _updates(run, n, each, plan.round) for n, each in some.items()}
            run.merging.hear([part for collected in some.values() for part in collected.parts])
            masses = {name: each.mass for name, each in some.items()}
            merged = run.merging.merge(updates, masses)
    except UserError as error:
        if isinstance(error, MergeError) and not len(run.ledger.clients):
            raise  # nothing was ever merged, and the next rounds would go as this one
        _count(run, error, plan.round)
        return _Merged(kept=str(error))
    run.refusals.none()
    if not run.shares:
        return _Merged()
    found = diagnose_parts(run.roster.parts, merged, some) if plan.diagnosed else None
    steps = {}
    for part in run.roster.parts.parts:
        if part.name in merged:
            moved = moved_buffers(part, some, robust=run.strategy.robust)
            steps[part.name] = torch.cat([merged[part.name][1], moved])
    return _Merged(run.merging.whole(steps), None, found)


def _count(run: Run, error: UserError, round: int) -> None:
    """Note that a merge failed, where other clients would change nothing about that.

    Raises:
        UserError: too many in a row did, for the same reason.
    """
    if isinstance(error, _TooFewError):
        return
    # Nodes of a deployment may come back, and a rule that refuses too few clients go on.
    if isinstance(error, MergeError | NotFiniteError) or not run.roster.deployed:
        run.refusals.one(str(error), round)


class _TooFewError(UserError):
    """Fewer clients trained than are to be merged."""


def _check_enough(run: Run, groups: Mapping[str, Collector]) -> None:
    trained = sum(len(collected.trained) for collected in groups.values())
    if trained < (least := run.config.strategy.min_clients):
        raise _TooFewError(f"{trained} clients trained, strategy.min_clients is {least}")


def _updates(run: Run, group: str, collected: Collector, round: int) -> Updates:
    backbone = run.roster.parts.groups[group].parameters.flat(run.of_group(group))
    try:
        found = collected.updates(backbone, round)
    except LostError as error:
        nodes = ", ".join(f"node {run.roster.name(node)}" for node in error.nodes)
        raise StateLostError(nodes or "a node") from None
    return replace(found, evaluation=run.evaluation, evaluated=run.evaluated)


@dataclass(frozen=True)
class _Evaluated:
    """What an evaluation gave; see :class:`fedjoint.runs.record.RoundRecord`.

    Attributes:
        clients: ``[n]`` int64 ids, ascending, of those evaluated.
        values: ``[n, measures]`` their own test metrics; NaN where undefined.
        untrained: how many were left out, as they never trained.
        own: what clients measured, where they are tasks.
    """

    metrics: dict[str, Metrics] | None = None
    spread: dict[str, dict[str, float | int]] | None = None
    failed: list[Failure] = field(default_factory=list)
    clients: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    untrained: int = 0
    own: dict[str, dict[str, dict[str, float]]] | None = None


def _evaluate(run: Run, round: int) -> _Evaluated:
    """Have the clients measure the merged backbone, in rounds in which that is due.

    Raises:
        UserError: the strategy cannot broadcast.
        StateLostError: a node died.
    """
    asked, untrained = plan_evaluation(run.config, run.roster, round, run.ledger, run.exclusions)
    if not asked:
        return _Evaluated(untrained=untrained)
    asked = dealt(run.merging, asked, round)
    replies, failed = _measured(run, asked, run.evaluate(asked, round, run.broadcast(round)))
    sums: evaluation.Sums = {}
    owners: dict[int, int] = {}
    for (node, group), reply in replies.items():
        owners |= dict.fromkeys(asked[node, group].blocks.tolist(), node)
        for key, blocks in evaluation.by_block(reply).items():
            sums.setdefault(key, {}).update(blocks)
    if not sums:
        return _Evaluated(failed=failed, untrained=untrained)
    if (most := most_of_a_node(run.roster)) < 1:
        sums = evaluation.limited_sums(sums, owners, most)
    ids = np.concatenate([asked[seat].clients for seat in replies])
    nodes = np.concatenate([np.full(len(asked[seat].clients), seat[0]) for seat in replies])
    tasks, told = run.roster.tasks, np.concatenate([reply.values for reply in replies.values()])
    each = evaluation.plausible(told)
    liars = (np.isfinite(told) & np.isnan(each)).any(1)
    why = "a metric of its own does not count: it is far beyond the others'"
    failed += [
        Failure(client, node, why, fault=True)
        for client, node in zip(ids[liars].tolist(), nodes[liars].tolist(), strict=True)
    ]
    order = np.argsort(ids)
    return _Evaluated(
        evaluation.pooled(sums, tasks),
        evaluation.spread(each, tasks),
        failed,
        ids[order],
        each[order],
        untrained,
        _own(run, ids, each, replies.values()) if run.config.data.clients_are_tasks else None,
    )


def _own(
    run: Run, ids: np.ndarray, test: np.ndarray, replies: Collection[EvaluateReply]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return what each client measured of its own, see :func:`evaluation.by_client`."""
    found = {"test": test}
    for split in ("train", "valid"):
        none = [np.full(reply.values.shape, np.nan) for reply in replies]
        told = [r.others.get(split, nan) for r, nan in zip(replies, none, strict=True)]
        found[split] = evaluation.plausible(np.concatenate(told))
    return evaluation.by_client(found, ids, run.roster.tasks)


def _measured(
    run: Run, asked: Mapping[Seat, Asked], messages: Iterable[Message]
) -> tuple[dict[Seat, EvaluateReply], list[Failure]]:
    """Check what was measured as it arrives; return it by node and group, and who failed.

    Raises:
        StateLostError: a node died.
    """
    replies: dict[Seat, EvaluateReply] = {}
    failed: list[Failure] = []
    silent = dict(asked)
    for message in _alive(run, messages):
        seat = node, _ = _seat(message)
        if seat not in silent:
            continue  # nobody asked, or it has replied already
        share = silent.pop(seat)
        if message.has_error():
            failed.append(Failure(None, node, plain(message.error.reason or "evaluation failed")))
            continue
        try:
            replies[seat] = EvaluateReply.unpack(message, share, run.roster.tasks)
        except Exception as error:  # whatever a forged reply may provoke
            failed.append(Failure(None, node, plain(error), fault=True))
    for wrong in (evaluation.odd_ones, evaluation.overstated):
        for seat, why in wrong(replies).items():
            failed.append(Failure(None, seat[0], why, fault=True))
            del replies[seat]
    for (node, _), reply in replies.items():
        failed += [Failure(each.client, node, plain(each.reason)) for each in reply.failed]
    failed += [Failure(None, node, _LATE) for node, _ in silent]
    return replies, failed


def _checkpoint(run: Run, round: int, *, best: bool) -> None:
    """Have the nodes save private state, then tell the callbacks; else the one before stays.

    Args:
        run: the run.
        round: the round.
        best: whether it is the best so far, to be kept as such.

    Raises:
        StateLostError: a node died.
    """
    before = dict(run.roster.placed)
    if run.roster.nodes and all(node.movable for node in run.roster.nodes.values()):
        run.roster.place()
    moved = before != run.roster.placed
    for reply in _alive(run, run.persist(round, forget=moved)):
        if not reply.has_error():
            continue
        node = reply.metadata.src_node_id
        name, why = run.roster.name(node), reply.error.reason
        log.error("round %d: node %s did not save: %s", round, name, why)
        # A deployed node has written after every message; a simulated one has not.
        known = run.roster.nodes.get(node)
        if known and known.movable:
            log.error("round %d: no checkpoint, the one before stays", round)
            return
    checkpoint = _keep(run, round, run.merging.state)
    for callback in run.callbacks if best else ():
        callback.on_best(checkpoint)
    if run.best and best:
        run.best.ledger = replace(run.ledger)


def keep_last(run: Run, round: int) -> None:
    """Have a deployed run end with a round that is done, while the next one goes on.

    Its nodes have written private state after every message, and need not be asked.
    """
    if round > run.durable:
        _keep(run, round, run.before)


def _keep(run: Run, round: int, state: dict[str, Any]) -> Checkpoint:
    digest, backbones = run.roster.digest, run.merging.named
    checkpoint = Checkpoint(round, run.named(), state, run.ledger, digest, backbones=backbones)
    for callback in run.callbacks:
        callback.on_checkpoint(checkpoint)
    run.durable = round
    return checkpoint


def _alive(run: Run, replies: Iterable[Message]) -> Iterator[Message]:
    """Yield ``replies``; once all are in, raise a StateLostError where a node died."""
    dead = []
    for reply in replies:
        if reply.has_error() and reply.error.code == NODE_DIED:
            dead.append(f"node {run.roster.name(reply.metadata.src_node_id)}")
        yield reply
    if dead:
        raise StateLostError(", ".join(dead))


def _named(run: Run, failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """Return ``failures`` with the names of their nodes."""
    return tuple(replace(failure, name=run.roster.name(failure.node)) for failure in failures)
