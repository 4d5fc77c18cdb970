"""Who does what in a round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.protocol.requests import Asked
from fedjoint.server.population import Population
from fedjoint.server.pull import equal_pull
from fedjoint.server.roster import Roster


@dataclass(frozen=True)
class Plan:
    """What the nodes are asked to train in a round.

    Attributes:
        round: from 1.
        clients: how many are to train.
        asked: node -> its share.
        reduce: whether nodes send a mean per block of clients, and no rows.
        compared: ``[n]`` int64, ids of the clients whose updates are compared with one another.
        diagnosed: whether this round is.
    """

    round: int
    clients: int
    asked: dict[int, Asked]
    reduce: bool
    compared: np.ndarray
    diagnosed: bool

    def sampled(self, node: int) -> np.ndarray:
        """Return ``[n]`` bool, which of a node's clients are compared with others."""
        return np.isin(self.asked[node].clients, self.compared)


def plan_training(config: Config, roster: Roster, round: int, *, per_client: bool) -> Plan:
    """Draw the clients of a round and divide them among the nodes.

    Args:
        config: the run's configuration.
        roster: who is there.
        round: the round.
        per_client: whether the strategy needs a row per client.

    Raises:
        UserError: the round has fewer clients than a merge needs.
    """
    people, s, d = roster.people, config.strategy, config.diagnostics
    chosen = people.sample(config.seed, round, s.fraction)
    if not roster.deployed and len(chosen) < s.min_clients:
        raise UserError(
            f"strategy.min_clients is {s.min_clients}, but a round has {len(chosen)} clients: "
            "lower it, or raise data.clients or strategy.fraction"
        )
    diagnosed = bool(d.every) and round % d.every == 0
    compared = chosen[:0]
    if diagnosed:
        compared = people.sample_compared(chosen, config.seed, round, d.clients)
    return Plan(
        round=round,
        clients=len(chosen),
        asked=roster.split(chosen, weigh(people, chosen, s.weight_by)),
        reduce=not per_client and len(chosen) > d.clients and s.compression.name == "none",
        compared=people.ids[compared],
        diagnosed=diagnosed,
    )


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


def plan_evaluation(config: Config, roster: Roster, round: int) -> dict[int, Asked]:
    """Return what each node is asked to evaluate; nothing in rounds without an evaluation."""
    e = config.evaluate
    if round % e.every and round != config.rounds:
        return {}
    chosen = roster.people.sample_evaluation(config.seed, round, e.fraction)
    return roster.split(chosen, np.ones(len(chosen)))
