"""Who does what in a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.protocol.requests import Asked
from fedjoint.randomness import Purpose, generator
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.record import Metrics
from fedjoint.server.candidates import Budget, Candidates
from fedjoint.server.exclusion import Exclusions
from fedjoint.server.roster import Roster, Seat
from fedjoint.server.strategy import JointStrategy, checked_choice, chooses, circumstances
from fedjoint.server.weights import weigh

_OWN_STEPS = 1000  # times the budget: what a local method of a run's own may take


@dataclass(frozen=True)
class Plan:
    """What the nodes are asked to train in a round.

    Attributes:
        round: from 1.
        clients: how many are to train.
        asked: node and group of its clients -> their share.
        reduce: whether nodes send a mean per block of clients, and no rows.
        compared: ``[n]`` int64, ids of the clients whose updates are compared with one another.
        diagnosed: whether this round is.
        within: whether those clients compare their own tasks with one another.
        deviations: whether clients with several tasks tell the tasks' updates apart.
    """

    round: int
    clients: int
    asked: dict[Seat, Asked]
    reduce: bool
    compared: np.ndarray
    diagnosed: bool
    within: bool
    deviations: bool

    def sampled(self, seat: Seat) -> np.ndarray:
        """Return ``[n]`` bool, which of the clients at a seat are compared with others."""
        return np.isin(self.asked[seat].clients, self.compared)


def plan_training(
    config: Config,
    roster: Roster,
    round: int,
    strategy: JointStrategy,
    ledger: Ledger,
    evaluation: Mapping[str, Metrics],
    exclusions: Exclusions,
) -> Plan:
    """Draw the clients of a round and divide them among the nodes.

    Args:
        config: the run's configuration.
        roster: who is there.
        round: the round.
        strategy: may choose the clients, and give them budgets.
        ledger: their last rounds, and losses in these.
        evaluation: the last one.
        exclusions: who is not asked any more.

    Raises:
        UserError: the round has fewer clients than a merge needs, or the strategy's choice is
            wrong.
    """
    people, s, d = roster.people, config.strategy, config.diagnostics
    chosen, budget = people.sample(config.seed, round, s.fraction), Budget()
    chosen = exclusions.allowed(people, chosen, roster.names)
    if chooses(strategy):
        able = exclusions.allowed(people, np.flatnonzero(people.sizes > 0), roster.names)
        candidates = _candidates(config, roster, round, chosen, able, ledger, evaluation)
        ids, budget = checked_choice(strategy, round, candidates)
        chosen = np.searchsorted(people.ids, ids)
    if not roster.deployed and len(chosen) < s.min_clients:
        raise UserError(
            f"strategy.min_clients is {s.min_clients}, but a round has {len(chosen)} clients: "
            "lower it, or raise data.clients or strategy.fraction"
        )
    diagnosed = bool(d.every) and round % d.every == 0
    several = bool((people.tasks[chosen].sum(1) > 1).any())
    within = several and bool(d.within_every) and round % d.within_every == 0
    most = _most_steps(strategy, people.sizes[chosen], budget.steps)
    weights = weigh(roster, chosen, strategy.robust)
    # As the run is configured, not as this round is: rows and their means differ in the last bit.
    all_rows = len(chosen) <= d.clients and (
        d.every > 0 or (d.within_every > 0 and bool((people.tasks.sum(1) > 1).any()))
    )
    compared = chosen[:0]
    if diagnosed or within:
        compared = people.sample_compared(chosen, config.seed, round, d.clients)
    return Plan(
        round=round,
        clients=len(chosen),
        asked={
            seat: _with_budget(share, people.ids[chosen], budget, most)
            for seat, share in roster.split(chosen, weights).items()
        },
        reduce=not strategy.per_client and not all_rows and s.compression.name == "none",
        compared=people.ids[compared],
        diagnosed=diagnosed,
        within=within,
        deviations=several and bool(strategy.tasks_apart),
    )


def _candidates(
    config: Config,
    roster: Roster,
    round: int,
    drawn: np.ndarray,
    able: np.ndarray,
    ledger: Ledger,
    evaluation: Mapping[str, Metrics],
) -> Candidates:
    people = roster.people
    ids = people.ids[able]
    return Candidates(
        ids=ids,
        sizes=people.sizes[able],
        tasks=people.tasks[able],
        task_names=tuple(task.name for task in roster.tasks),
        losses=ledger.losses_of(ids),
        trained=ledger.of(ids),
        count=len(drawn),
        drawn=people.ids[drawn],
        evaluation=evaluation,
        rng=generator(config.seed, Purpose.SELECTION, round),
    )


def _with_budget(share: Asked, ids: np.ndarray, budget: Budget, most: np.ndarray) -> Asked:
    """Return the share of a node with its clients' part of ``budget``.

    Args:
        share: of the node.
        ids: ``[n]`` of all clients of the round, ascending.
        budget: theirs.
        most: ``[n]`` int64, the optimiser steps that they may say they took.
    """
    at = np.searchsorted(ids, share.clients)
    steps, rates = (own if own is None else own[at] for own in (budget.steps, budget.rates))
    return replace(share, steps=steps, rates=rates, budget=most[at])


def _most_steps(strategy: JointStrategy, sizes: np.ndarray, steps: np.ndarray | None) -> np.ndarray:
    """Return ``[n]`` int64, the optimiser steps that clients may say they took.

    Args:
        strategy: of the run.
        sizes: ``[n]`` their training examples.
        steps: ``[n]`` what the strategy gave them; None: as configured.
    """
    known = circumstances(strategy)
    assert known is not None, "made by make_strategy"
    local = known.config.local
    if steps is None:
        epochs = -(-sizes // local.batch_size) * (local.epochs or 0)
        steps = np.full(len(sizes), local.steps) if local.steps else epochs
    # A method whose steps are not the optimiser's own may take more.
    return steps * (1 if known.method.mu is not None else _OWN_STEPS)


def plan_evaluation(
    config: Config, roster: Roster, round: int, ledger: Ledger, exclusions: Exclusions
) -> tuple[dict[Seat, Asked], int]:
    """Return what each node is asked to evaluate, and how many clients are left out.

    A client that never trained has a head that never trained: it is in no metric, and others are
    drawn in its place. Before the first round nobody has trained, and everybody may be drawn.

    Args:
        config: the run's configuration.
        roster: who is there.
        round: the round; 0 before the first. Nothing is asked in rounds without an evaluation.
        ledger: who trained.
        exclusions: who is not asked any more.
    """
    e, people = config.evaluate, roster.people
    if round % e.every and round != config.rounds:
        return {}, 0
    ready = ledger.of(people.ids) > 0 if round else np.ones(len(people.ids), bool)
    chosen, untrained = people.sample_evaluation(config.seed, round, e.fraction, ready)
    chosen = exclusions.allowed(people, chosen, roster.names)
    return roster.split(chosen, np.ones(len(chosen))), untrained
