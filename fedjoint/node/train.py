"""What a node does with a request to train."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.limit import uninterrupted
from fedjoint.errors import UserError
from fedjoint.node.jobs import Jobs, Members, Start
from fedjoint.node.mods import Mods
from fedjoint.node.sinks import Sink
from fedjoint.node.trained import Trained
from fedjoint.node.turns import Turns
from fedjoint.protocol.compression import compress, make_compression
from fedjoint.protocol.reports import ClientFailure, ClientReports
from fedjoint.protocol.requests import TrainRequest
from fedjoint.protocol.training import TrainReply
from fedjoint.randomness import Purpose, derive, seeded
from fedjoint.training.draws import Drawing
from fedjoint.training.job import Job

_NOT_FINITE = "what it learnt is not finite; lower local.optimiser.lr"


class Training:
    """Trains clients.

    Args:
        jobs: makes their jobs.
        least: fewest training examples of a client whose losses are told.
        mods: what updates pass before they are sent; None: nothing.
    """

    def __init__(self, jobs: Jobs, least: int, mods: Mods | None = None) -> None:
        self._least, self._mods = least, mods
        self._jobs, self._trainer = jobs, jobs.trainer
        self._drawing = Drawing(self._trainer.device, scattered=self._trainer.traits.scattered)
        self._turns = Turns(jobs)

    def run(self, request: TrainRequest, start: Start, sink: Sink) -> TrainReply:
        """Train the clients of a request, bundle by bundle.

        Args:
            request: who, and which of their rounds counts.
            start: what they start from.
            sink: takes their updates.

        Raises:
            UserError: a client does not live here.
        """
        began, tasks = time.perf_counter(), self._trainer.problem.tasks
        reports = ClientReports.empty(len(request.asked.clients), len(tasks))
        failed: list[ClientFailure] = []
        extras: dict[str, np.ndarray] = {}
        seconds, sent = np.zeros(len(request.asked.blocks)), 0
        within = np.full((int(request.sampled.sum()), len(tasks), len(tasks)), np.nan)
        seats, had = request.sampled.cumsum() - 1, np.zeros(len(reports.good), np.int64)
        work = self._jobs.divide(request.asked, request.rounds)
        act = partial(self._train, request, start)
        for turn in self._turns.run(work, act, failed, request.header.timeout):
            trained, rows = turn.result, turn.members.rows
            good = trained.good
            failed += [ClientFailure(c, _NOT_FINITE) for c in turn.members.ids[~good].tolist()]
            reports.put(rows, trained.reports)
            sent = max(sent, trained.sent)
            _scatter(extras, trained.extras, rows, len(reports.good))
            few = request.sampled[rows]
            within[seats[rows[few]]] = trained.within[few]
            had[rows] = trained.backbone
            if good.any() and start.method.shares:
                sink.add(trained)
            np.add.at(seconds, trained.blocks, turn.seconds / len(rows))
        sink.close()
        return TrainReply(
            tasks=tuple(task.name for task in tasks),
            shares=start.method.shares,
            failed=tuple(failed),
            seconds=time.perf_counter() - began,
            bytes_per_client=sent,
            fallback=self._trainer.fallback or self._trainer.squeezed,
            reports=reports,
            block_seconds=seconds,
            rows=sink.rows,
            payload=sink.payload(),
            buffers=sink.buffers,
            sample=sink.sample,
            extras=extras,
            within=within if request.within else None,
            deviations=sink.deviations(),
            received=None if request.asked.received is None else had,
        )

    def _train(self, request: TrainRequest, start: Start, members: Members) -> Trained:
        def train() -> tuple[Job, Tensor | None, dict[str, Tensor]]:
            job = self._jobs.job(members, start, train=True)
            apart = request.deviations and start.method.shares and len(job.cohort.tasks) > 1
            return job, self._trainer.pulls(job) if apart else None, start.method.train(job)

        config, method = self._trainer.config, start.method
        asked = request.within and not self._mods  # which pass by them
        within = self._compare_tasks(start, members, asked & request.sampled[members.rows])
        seeds = derive(config.seed, Purpose.TRAINING, start.round, members.ids).tolist()
        job, pulls, extras = self._drawing.run(seeds, train)
        self._trainer.check_held()
        update = job.shared.sub_(job.start) if method.shares else job.shared[:, :0]
        if self._mods and method.shares:
            apart = ["updates of single tasks"] if pulls is not None else []
            self._mods.check(request.header.method, [*extras, *apart])
            sizes = job.cohort.train.sizes
            self._mods.apply(self._trainer.layout, job.start, update, sizes)
        deviations = self._deviations(job, pulls, update)
        good = _finite(job, {**extras, "deviations": deviations})
        payload: dict[str, Tensor] = {}
        deviation_payload: dict[str, Tensor] = {}
        sent = update.shape[1] * 4 + sum(extra[0].nbytes for extra in extras.values())
        if method.shares and config.strategy.compression.name != "none":
            payload, saved = self._compress(job, update, good)
            sent -= saved
            deviation_payload = self._compress_deviations(deviations[good])
        reports = self._report(job, members, good.cpu().numpy())
        if not reports.good.all() and members.blocks[0] < members.blocks[-1]:
            raise UserError("some of these clients, or their heads for others' tasks, diverge")
        with uninterrupted():
            self._jobs.keep(job, members, start.round, reports.good)
        return Trained(
            members.rows,
            members.blocks,
            reports,
            update,
            deviations,
            payload,
            deviation_payload,
            extras,
            sent,
            within,
            0 if job.backbone is None else job.backbone.cpu().numpy(),
        )

    def _deviations(self, job: Job, pulls: Tensor | None, update: Tensor) -> Tensor:
        """Return ``[c, tasks - 1, P]``; ``[c, 0, P]`` where nobody asked."""
        size = self._trainer.layout.parameters.size
        if pulls is None:
            return update.new_zeros(len(update), 0, size)
        return self._trainer.deviations(job, pulls, update[:, :size])

    def _compress_deviations(self, good: Tensor) -> dict[str, Tensor]:
        """Return what stands for deviations ``[c, k, P]``; what it leaves out is not fed back."""
        rows, config = good.flatten(0, 1), self._trainer.config.strategy.compression
        return make_compression(config).compress(rows) if len(rows) else {}

    def _compare_tasks(self, start: Start, members: Members, wanted: np.ndarray) -> np.ndarray:
        """Return ``[c, tasks, tasks]`` float64, how the tasks of each client that is wanted agree.

        NaN where it has not both, or cannot tell: what is wrong with it is said where it trains.
        """
        names = [task.name for task in self._trainer.problem.tasks]
        found = np.full((len(wanted), len(names), len(names)), np.nan)

        def compare(few: Members) -> tuple[np.ndarray, np.ndarray]:
            with seeded(self._trainer.device, 0):
                job = self._jobs.job(few, start)
                places = np.array([names.index(task.name) for task in job.cohort.tasks])
                grams, has = self._trainer.within(job).numpy(), job.cohort.has
                return places, np.where(has[:, None] & has[..., None], grams, np.nan)

        few = members.at(np.flatnonzero(wanted))
        few = few.at(self._jobs.tasks(few).sum(1) > 1)
        if not len(few.ids):
            return found
        for measured, (places, grams) in self._jobs.attempt(compare, few, []):
            rows = np.flatnonzero(np.isin(members.ids, measured.ids))
            found[np.ix_(rows, places, places)] = grams
        return found

    def _compress(self, job: Job, update: Tensor, good: Tensor) -> tuple[dict[str, Tensor], int]:
        """Compress ``update`` in place; return what to send and how many bytes a client saves."""
        size = self._trainer.layout.parameters.size
        residual = job.private["compression.residual"]
        # BatchNorm's statistics are sent as they are: their part of the residual stays zero.
        at = slice(size)
        payload, update[:, at], residual[:, at] = compress(
            update[:, at], residual[:, at], self._trainer.config.strategy.compression
        )
        saved = 4 * size - sum(part[0].nbytes for part in payload.values())
        return {name: values[good] for name, values in payload.items()}, saved

    def _report(self, job: Job, members: Members, good: np.ndarray) -> ClientReports:
        tasks = self._trainer.problem.tasks
        losses = np.full((len(good), len(tasks)), np.nan, np.float32)
        names = [task.name for task in tasks]
        sizes = job.cohort.train.sizes
        losses[:, [names.index(task.name) for task in job.cohort.tasks]] = job.losses.cpu().numpy()
        losses[sizes < self._least] = np.nan
        return ClientReports(members.ids, good, sizes, job.steps, job.work, losses)


def _finite(job: Job, extras: Mapping[str, Tensor]) -> Tensor:
    """Return ``[c]`` bool, for which clients all that training left is finite.

    What a client keeps to itself has to be so as well as what it sends: nobody else would see it.
    """
    good = ~job.losses.isinf().any(1)
    for name, tensor in {"": job.shared, **job.private, **extras}.items():
        if not tensor.is_floating_point() or not tensor[0].numel():
            continue
        rows = tensor.reshape(len(tensor), -1)
        if name.startswith("balance."):  # where NaN says: not yet
            good &= ~rows.isinf().any(1)
        else:
            good &= torch.linalg.vector_norm(rows, dim=1).isfinite()
    return good


def _scatter(
    whole: dict[str, np.ndarray], parts: Mapping[str, Tensor], rows: np.ndarray, count: int
) -> None:
    """Write ``parts`` ``[c, ...]`` to ``rows`` of arrays ``[count, ...]``."""
    for name, part in parts.items():
        values = part.cpu().numpy()
        if name not in whole:
            whole[name] = np.zeros((count, *values.shape[1:]), values.dtype)
        whole[name][rows] = values
