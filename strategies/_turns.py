"""Two or more ways of sharing that take turns, and are measured on validation data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedjoint.server.strategy import JointStrategy, circumstances
from fedjoint.server.updates import Updates


@dataclass(frozen=True)
class Turns:
    """Who trains when: each way for as many rounds as lie between evaluations, then the next.

    Attributes:
        since: the round before the first turn, a multiple of ``length``.
        length: rounds of a turn; after the last of them there is an evaluation.
        ways: how many take turns.
        each: turns of each way.
    """

    since: int
    length: int
    ways: int
    each: int

    @property
    def last(self) -> int:
        """The last round of the last turn."""
        return self.since + self.length * self.ways * self.each

    def way(self, round: int) -> int | None:
        """Return whose turn it is in ``round``; None: nobody's."""
        if not self.since < round <= self.last:
            return None
        return (round - self.since - 1) // self.length % self.ways

    def measured(self, round: int, evaluated: int) -> int | None:
        """Return whose turn the last evaluation ended; None: it is no news.

        Args:
            round: the round.
            evaluated: the round after which the last evaluation was.
        """
        news = evaluated == round - 1 and (evaluated - self.since) % self.length == 0
        return self.way(evaluated) if news else None


def rounds_of_a_turn(strategy: JointStrategy) -> int:
    """Return how many rounds lie between evaluations."""
    known = circumstances(strategy)
    return known.config.evaluate.every if known else 1


def rounds_of_the_run(strategy: JointStrategy) -> int | None:
    """Return how many rounds the run has; None outside a run."""
    known = circumstances(strategy)
    return known.config.rounds if known else None


class Measured:
    """The validation metrics of each way, in a strategy's state.

    It has ``valid`` ``[ways, tasks]`` float64, their sums; ``known``, whether all of them were
    defined; and ``times`` ``[ways]`` int64, how often a way was measured: rounds that were not
    merged, and evaluations that nobody answered, are missing.

    Args:
        state: of the strategy.
        ways: how many there are.
        tasks: how many there are.
    """

    def __init__(self, state: dict[str, Tensor], ways: int, tasks: int) -> None:
        state.setdefault("valid", torch.zeros(ways, tasks, dtype=torch.float64))
        state.setdefault("known", torch.ones(ways, tasks, dtype=torch.bool))
        state.setdefault("times", torch.zeros(ways, dtype=torch.int64))
        self._state = state

    def add(self, way: int, values: Tensor) -> None:
        """Add what was measured of a way, ``[tasks]``; NaN: undefined."""
        self._state["valid"][way] += values.nan_to_num()
        self._state["known"][way] &= ~values.isnan()
        self._state["times"][way] += 1

    def close(self) -> Tensor:
        """``[ways, tasks]``, the means, NaN where undefined; the state has them no more."""
        valid, known, times = (self._state.pop(name) for name in ("valid", "known", "times"))
        return (valid / times[:, None]).masked_fill(~known, torch.nan)


def validated(strategy: JointStrategy, updates: Updates) -> Tensor:
    """``[tasks]`` float64, the last validation metrics, higher being better; NaN: undefined."""
    known, valid = circumstances(strategy), updates.evaluation.get("valid", {})
    rising = known.rising if known else {}
    values = [(valid.get(name), rising.get(name, True)) for name in updates.task_names]
    signed = [torch.nan if v is None else v if rises else -v for v, rises in values]
    return torch.tensor(signed, dtype=torch.float64)
