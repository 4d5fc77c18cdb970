"""What clients weigh in a merge."""

from __future__ import annotations

import numpy as np

from fedjoint.config.schema import StrategyConfig
from fedjoint.server.population import Population
from fedjoint.server.pull import equal_pull
from fedjoint.server.roster import Roster
from fedjoint.server.shares import limited, limited_together

_DEPLOYED = 0.5  # most that one client, or one node, weighs on real machines


def weigh(roster: Roster, chosen: np.ndarray, robust: bool) -> np.ndarray:
    """Return ``[n]`` float64, the weights of clients in the merge, not normalised.

    Args:
        roster: who is there.
        chosen: ``[n]`` positions of those of the round.
        robust: whether the strategy is, see :class:`fedjoint.server.strategy.JointStrategy`.
    """
    strategy, people = roster.config.strategy, roster.people
    weights = _wanted(strategy, people, chosen, robust)
    if not len(weights):
        return weights
    usual = _DEPLOYED if roster.deployed else 1.0
    weights = limited(weights, strategy.max_share or usual)
    return limited_together(weights, people.home[chosen], most_of_a_node(roster))


def most_of_a_node(roster: Roster) -> float:
    """Return the most that the clients of one node weigh together."""
    return roster.config.strategy.max_node_share or (_DEPLOYED if roster.deployed else 1.0)


def _wanted(
    strategy: StrategyConfig, people: Population, chosen: np.ndarray, robust: bool
) -> np.ndarray:
    by = strategy.weight_by or ("client" if robust else "examples")
    if by == "examples":
        return people.sizes[chosen].astype(float)
    if by == "client":
        return np.ones(len(chosen))
    return equal_pull(people.tasks[chosen])
