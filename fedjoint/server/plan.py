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
from fedjoint.server.population import Population
from fedjoint.server.pull import equal_pull
from fedjoint.server.roster import Roster, Seat
from fedjoint.server.strategy import JointStrategy, checked_choice, chooses


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
) -> Plan:
    """Draw the clients of a round and divide them among the nodes.

    Args:
        config: the run's configuration.
        roster: who is there.
        round: the round.
        strategy: may choose the clients, and give them budgets.
        ledger: their last rounds, and losses in these.
        evaluation: the last one.

    Raises:
        UserError: the round has fewer clients than a merge needs, or the strategy's choice is
            wrong.
    """
    people, s, d = roster.people, config.strategy, config.diagnostics
    chosen, budget = people.sample(config.seed, round, s.fraction), Budget()
    if chooses(strategy):
        candidates = _candidates(config, roster, round, chosen, ledger, evaluation)
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
    compared = chosen[:0]
    if diagnosed or within:
        compared = people.sample_compared(chosen, config.seed, round, d.clients)
    return Plan(
        round=round,
        clients=len(chosen),
        asked={
            seat: _with_budget(share, people.ids[chosen], budget)
            for seat, share in roster.split(chosen, weigh(people, chosen, s.weight_by)).items()
        },
        reduce=not strategy.per_client and len(chosen) > d.clients and s.compression.name == "none",
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
    ledger: Ledger,
    evaluation: Mapping[str, Metrics],
) -> Candidates:
    people = roster.people
    able = np.flatnonzero(people.sizes > 0)
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


def _with_budget(share: Asked, ids: np.ndarray, budget: Budget) -> Asked:
    """Return the share of a node with its clients' part of ``budget``, which is that of ``ids``."""
    at = np.searchsorted(ids, share.clients)
    steps, rates = (own if own is None else own[at] for own in (budget.steps, budget.rates))
    return replace(share, steps=steps, rates=rates)


def weigh(people: Population, chosen: np.ndarray, by: str) -> np.ndarray:
    """Return ``[n]`` float64, the weights of clients in the merge, not normalised.

    Args:
        people: all clients.
        chosen: ``[n]`` positions of those of the round.
        by: ``examples``, ``client`` or ``task``, as ``strategy.weight_by``.
    """
    if by == "examples":
        return people.sizes[chosen].astype(float)
    if by == "client":
        return np.ones(len(chosen))
    return equal_pull(people.tasks[chosen])


def plan_evaluation(
    config: Config, roster: Roster, round: int, ledger: Ledger
) -> tuple[dict[Seat, Asked], int]:
    """Return what each node is asked to evaluate, and how many clients are left out.

    A client that never trained has a head that never trained: it is left out of the metrics. Before
    the first round nobody has trained, and everybody is evaluated.

    Args:
        config: the run's configuration.
        roster: who is there.
        round: the round; 0 before the first. Nothing is asked in rounds without an evaluation.
        ledger: who trained.
    """
    e, people = config.evaluate, roster.people
    if round % e.every and round != config.rounds:
        return {}, 0
    chosen = people.sample_evaluation(config.seed, round, e.fraction)
    trained = chosen[ledger.of(people.ids[chosen]) > 0] if round else chosen
    return roster.split(trained, np.ones(len(trained))), len(chosen) - len(trained)
