"""What a node does with a request to evaluate."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import SHARED
from fedjoint.model.metric import Metric
from fedjoint.model.tasks import measures
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
        least: fewest examples behind a statistic that is told.
        together: whether the sums are those of all clients, under the first block's number, rather
            than of each block.
    """

    def __init__(self, jobs: Jobs, least: int, together: bool) -> None:
        self._least, self._together = least, together
        self._jobs, self._trainer = jobs, jobs.trainer
        self._apart = jobs.trainer.config.data.clients_are_tasks
        self._drawing = Drawing(self._trainer.device, scattered=self._trainer.traits.scattered)
        self._turns = Turns(jobs)

    def run(self, request: EvaluateRequest, start: Start) -> EvaluateReply:
        """Sum the metrics' statistics over the clients of each block.

        Args:
            request: who, and which of their rounds counts.
            start: what they start from.

        Raises:
            UserError: a client does not live here.
        """
        began, known = time.perf_counter(), measures(self._trainer.problem.tasks)
        splits = ("test", "train", "valid") if self._apart else ("test",)
        values = {
            split: np.full((len(request.asked.clients), len(known)), np.nan, np.float32)
            for split in splits
        }
        failed: list[ClientFailure] = []
        sums: dict[str, dict[int, Tensor]] = {}
        work = self._jobs.divide(request.asked, request.rounds)
        act = partial(self._evaluate, request, start)
        for turn in self._turns.run(work, act, failed, request.header.timeout):
            (each, good), members = turn.result, turn.members
            failed += [ClientFailure(c, _NOT_FINITE) for c in members.ids[~good.numpy()].tolist()]
            for place, at in members.by_block():
                rows, fine = members.rows[at], good[at].numpy()
                block = int(request.asked.blocks[0 if self._together else place])
                names = self._names(members.at(at), each)
                own = {name: each[name][at] for name in names}
                for split, told in values.items():
                    told[rows[fine]] = self._values(own, split)[fine]
                for name, statistics in own.items():
                    totals = sums.setdefault(name, {})
                    totals[block] = totals.get(block, 0) + statistics[good[at]].sum(0)
        sums = self._enough(sums)
        return EvaluateReply(
            measures=tuple(known),
            failed=tuple(failed),
            seconds=time.perf_counter() - began,
            sums={name: torch.stack(list(totals.values())) for name, totals in sums.items()},
            blocks={name: np.array(list(totals)) for name, totals in sums.items()},
            values=values.pop("test"),
            others=values,
        )

    def _names(self, members: Members, names: Iterable[str]) -> list[str]:
        """Return those of the statistics ``names`` that are of the clients' own tasks."""
        tasks = compress(self._trainer.problem.tasks, self._jobs.tasks(members)[0])
        own = measures(tasks)
        return [name for name in names if name.partition("/")[2] in own]

    def _enough(self, sums: dict[str, dict[int, Tensor]]) -> dict[str, dict[int, Tensor]]:
        """Return the sums over enough examples; the first statistic of a metric is their number."""
        if self._least <= 1:
            return sums
        kept = {
            name: {block: total for block, total in totals.items() if total[0] >= self._least}
            for name, totals in sums.items()
        }
        return {name: totals for name, totals in kept.items() if totals}

    def _evaluate(
        self, request: EvaluateRequest, start: Start, members: Members
    ) -> tuple[dict[str, Tensor], Tensor]:
        def evaluate() -> tuple[dict[str, Tensor], Tensor]:
            job = self._jobs.job(members, start)
            shared = self._shared(job, start.method, train=request.train)
            # A method may train to evaluate, and draw random numbers as it does.
            own, finite = self._trainer.evaluate(
                job.cohort, *start.method.personal(job), train=request.train
            )
            return own | shared, finite

        seed = self._trainer.config.seed
        seeds = derive(seed, Purpose.PERSONALISATION, start.round, members.ids).tolist()
        return self._drawing.run(seeds, evaluate)

    def _shared(self, job: Job, method: LocalMethod, *, train: bool) -> dict[str, Tensor]:
        """Return the statistics of the shared backbone, where that is asked for and another one.

        It may be bad where the client's own is not, so its outputs need not be finite.
        """
        personalises = type(method).personal is not LocalMethod.personal
        if not (self._trainer.config.evaluate.shared and method.shares and personalises):
            return {}
        found, _ = self._trainer.evaluate(job.cohort, job.shared, job.private, train=train)
        return {SHARED + name: statistics for name, statistics in found.items()}

    def _own(self, metric: Metric, statistics: Tensor) -> Tensor:
        """Return ``[c]``, the metric of every client with enough examples; NaN of the others."""
        values = metric.each(statistics)
        if self._least <= 1:
            return values
        return torch.where(statistics[:, 0] >= self._least, values, torch.nan)

    def _values(self, each: Mapping[str, Tensor], split: str) -> np.ndarray:
        """Return ``[c, measures]`` float32, the clients' own metrics of a split; NaN: undefined."""
        undefined = torch.full((len(next(iter(each.values()))),), torch.nan)
        columns = [
            self._own(metric, each[key]) if (key := f"{split}/{name}") in each else undefined
            for name, metric in measures(self._trainer.problem.tasks).items()
        ]
        return torch.stack([column.float() for column in columns], 1).numpy()
