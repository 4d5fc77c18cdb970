"""What a node does with a request to evaluate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import SHARED
from fedjoint.model.metric import Metric
from fedjoint.node.jobs import Jobs, Members, Start
from fedjoint.node.turns import Turns
from fedjoint.protocol.evaluation import EvaluateReply
from fedjoint.protocol.reports import ClientFailure
from fedjoint.protocol.requests import EvaluateRequest
from fedjoint.randomness import Purpose, derive
from fedjoint.training.draws import Drawing
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod

_NOT_FINITE = "its model's outputs are not finite; lower local.optimiser.lr"


class Evaluation:
    """Evaluates clients.

    Args:
        jobs: makes their jobs.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs, self._trainer = jobs, jobs.trainer
        self._drawing = Drawing(jobs.trainer.device)
        self._turns = Turns(jobs, jobs.trainer.config.strategy.timeout)

    def run(self, request: EvaluateRequest, start: Start) -> EvaluateReply:
        """Sum the metrics' statistics over the clients of each block.

        Args:
            request: who, and which of their rounds counts.
            start: what they start from.

        Raises:
            UserError: a client does not live here.
        """
        began, measures = time.perf_counter(), self._measures()
        values = np.full((len(request.asked.clients), len(measures)), np.nan, np.float32)
        failed: list[ClientFailure] = []
        sums: dict[str, dict[int, Tensor]] = {}
        work = self._jobs.divide(request.asked, request.rounds)
        for turn in self._turns.run(work, partial(self._evaluate, start), failed):
            (each, good), members = turn.result, turn.members
            rows, block = good.numpy(), int(request.asked.blocks[turn.place])
            failed += [ClientFailure(c, _NOT_FINITE) for c in members.ids[~rows].tolist()]
            values[members.rows[rows]] = self._values(each)[rows]
            for name, own in each.items():
                totals = sums.setdefault(name, {})
                totals[block] = totals.get(block, 0) + own[good].sum(0)
        return EvaluateReply(
            measures=tuple(measures),
            failed=tuple(failed),
            seconds=time.perf_counter() - began,
            sums={name: torch.stack(list(totals.values())) for name, totals in sums.items()},
            blocks={name: np.array(list(totals)) for name, totals in sums.items()},
            values=values,
        )

    def _evaluate(self, start: Start, members: Members) -> tuple[dict[str, Tensor], Tensor]:
        def evaluate() -> tuple[dict[str, Tensor], Tensor]:
            job = self._jobs.job(members, start, start.received.expand(len(members.ids), -1))
            shared = self._shared(job, start.method)
            # A method may train to evaluate, and draw random numbers as it does.
            own, finite = self._trainer.evaluate(job.cohort, *start.method.personal(job))
            return own | shared, finite

        seed = self._trainer.config.seed
        seeds = derive(seed, Purpose.PERSONALISATION, start.round, members.ids).tolist()
        return self._drawing.run(seeds, evaluate)

    def _shared(self, job: Job, method: LocalMethod) -> dict[str, Tensor]:
        """Return the statistics of the shared backbone, where that is asked for and another one.

        It may be bad where the client's own is not, so its outputs need not be finite.
        """
        personalises = type(method).personal is not LocalMethod.personal
        if not (self._trainer.config.evaluate.shared and method.shares and personalises):
            return {}
        found, _ = self._trainer.evaluate(job.cohort, job.shared, job.private)
        return {SHARED + name: statistics for name, statistics in found.items()}

    def _values(self, each: Mapping[str, Tensor]) -> np.ndarray:
        """Return ``[c, measures]`` float32, the clients' own test metrics; NaN: undefined."""
        undefined = torch.full((len(next(iter(each.values()))),), torch.nan)
        columns = [
            metric.each(each[key]) if (key := f"test/{name}") in each else undefined
            for name, metric in self._measures().items()
        ]
        return torch.stack([column.float() for column in columns], 1).numpy()

    def _measures(self) -> dict[str, Metric]:
        return {n: m for task in self._trainer.problem.tasks for n, m in task.measures.items()}
