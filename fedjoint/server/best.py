"""The round whose models do best on the clients' validation data, so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedjoint.model.tasks import Task
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.record import Metrics, RoundRecord


@dataclass
class Best:
    """What the best round so far has, and what a round needs to be it.

    Of several tasks the mean counts: of metrics that should rise as they are, and of those that
    should fall as the negative share of what they were at first. A round with an undefined metric
    is not the best. Of rounds that are alike, which few validation data make many, the last is.

    Attributes:
        score: of the best round; -inf: there is none.
        first: the first evaluation's metrics.
        ledger: which round of each client counts in the best round.
    """

    score: float = -math.inf
    first: Metrics | None = None
    ledger: Ledger = field(default_factory=Ledger)

    def beaten(self, evaluation: Mapping[str, Metrics], tasks: Sequence[Task]) -> bool:
        """Take the evaluation of a further round; return whether that round is the best now."""
        valid = evaluation.get("valid", {})
        self.first = self.first or valid
        score = float(np.mean([self._of(task, valid) for task in tasks]))
        if score < self.score or score == -math.inf:
            return False
        self.score = score
        return True

    def _of(self, task: Task, valid: Metrics) -> float:
        value, first = valid.get(task.name), (self.first or {}).get(task.name)
        if value is None:
            return -math.inf
        return value if task.metric_fn.higher_is_better else -value / (abs(first or 1.0) or 1.0)

    @classmethod
    def of(cls, records: Iterable[RoundRecord], tasks: Sequence[Task], ledger: Ledger) -> Best:
        """Return the best of the rounds done, with the ledger of the round that was kept."""
        best = cls(ledger=ledger)
        for record in records:
            if record.evaluation and record.round:
                best.beaten(record.evaluation, tasks)
        return best
