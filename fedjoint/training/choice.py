"""Which way of training clients is the fastest for a model: tried before the first round."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from fedjoint._util.limit import LateError, limited
from fedjoint._util.threads import cpu_threads
from fedjoint.config.schema import Config, LocalConfig
from fedjoint.data.beginnings import Beginnings
from fedjoint.errors import ANYTHING, said
from fedjoint.model.joint import JointModel
from fedjoint.model.products import Products
from fedjoint.model.tree import Input
from fedjoint.problem import Problem
from fedjoint.randomness import seeded, seeded_elsewhere
from fedjoint.training.memory import counted
from fedjoint.training.method import LocalMethod
from fedjoint.training.trainer import Trainer

#: Operations of a client's step below which starting them takes longer than running them, so that
#: batching clients always pays: a CPU's core takes some 20 microseconds for a million, a GPU a
#: hundredth of that.
_SMALL = {"cpu": 50e6, "cuda": 5e9}

_CPU = torch.device("cpu")

#: A way must be so much faster than those before it.
_MARGIN = 0.97

#: Clients, on a CPU and on a GPU, where many at once are the gain; steps that each takes, and times
#: that each way is tried.
_CLIENTS = {"cpu": 8, "cuda": 64}
_STEPS, _REPEATS = 8, 4

#: Operations of a try, a third of a second: of a larger model there are fewer clients, and they
#: take fewer steps. What one step takes tells enough there.
_MOST = {"cpu": 16e9, "cuda": 4e12}

#: A way that takes so many times what the fastest takes is tried once.
_HOPELESS = 1.5

#: Most clients that are packed into one job: more keep other workers busy.
_PACK = 32


@dataclass(frozen=True)
class Choice:
    """How clients train.

    Attributes:
        path: as ``local.path`` has it; never ``auto``.
        threads: as ``engine.threads`` has them.
        why: in words.
    """

    path: str
    threads: int
    why: str

    def applied(self, config: Config) -> Config:
        """Return ``config`` with what was chosen."""
        local = config.local.model_copy(update={"path": self.path})
        engine = config.engine.model_copy(update={"threads": self.threads})
        return config.model_copy(update={"local": local, "engine": engine})


def choose_path(
    problem: Problem,
    model: JointModel,
    config: Config,
    device: torch.device,
    *,
    seconds: float | None = None,
) -> Choice | None:
    """Try the ways to train a few clients; None where there is nothing to choose.

    Args:
        problem: tasks, backbone and data.
        model: the problem's.
        config: the run's.
        device: where clients train.
        seconds: that it may take; None: a quarter of a round's.
    """
    local, engine = config.local, config.engine
    threads = [engine.threads] if engine.threads else _open_threads(problem, config, device)
    if local.path != "auto" and len(threads) == 1:
        return None
    try:
        counting = Trainer(problem, config, _CPU, model)  # no GPU starts for that
        operations = _of_a_step(counting)
        if operations < _SMALL[device.type]:
            return None
        most = round(_MOST[device.type] / operations)
        with limited(seconds or config.strategy.limit / 4), seeded(device, 0), seeded_elsewhere(0):
            # Where there are fewer clients than threads, each is a job by itself.
            clients = 1 if len(threads) > 1 else _CLIENTS[device.type]
            on_cpu = device.type == "cpu"
            trainer = counting if on_cpu else Trainer(problem, config, device, model)
            ways = ways_of(trainer, most, clients)
            if len(ways) == len(threads) == 1:
                return None
            return _fastest(ways, threads, device)
    except (*ANYTHING, LateError) as error:  # of the model or the data, said where a node tries it
        path = "batched" if local.path == "auto" else local.path
        return Choice(path, engine.threads, f"the trial failed: {said(error)}")


def packed(problem: Problem, model: JointModel, config: Config) -> Config:
    """Return ``config`` with ``local.pack``, where that is open.

    As many clients as take as long for a step as it takes to start one, on a CPU.

    Args:
        problem: tasks, backbone and data.
        model: the problem's.
        config: the run's.
    """
    if config.local.pack or config.local.alone:
        return config
    try:
        operations = _of_a_step(Trainer(problem, config, _CPU, model))
    except ANYTHING:  # of the model, said where a node tries it
        return config
    pack = min(_PACK, int(_SMALL["cpu"] / max(1, operations)))
    local = config.local.model_copy(update={"pack": max(1, pack)})
    return config.model_copy(update={"local": local})


def _open_threads(problem: Problem, config: Config, device: torch.device) -> list[int]:
    """Return how many CPU threads a worker may have: one, or a client's share of them."""
    clients = max(1, int((problem.data.sizes > 0).sum()))
    # PyTorch's own number minds OMP_NUM_THREADS, and what a container may use.
    share = torch.get_num_threads() // clients
    here = device.type == "cpu" and not config.engine.address
    return [1, share] if here and share > 1 else [1]


def _of_a_step(trainer: Trainer) -> float:
    """Return the floating-point operations of a client's step."""
    return _operations(trainer.above, trainer.example) * trainer.config.local.batch_size


def _operations(model: JointModel, example: Input) -> float:
    """Return the floating-point operations of a forward and a backward pass of one example."""
    return 3 * counted(model, example, Products()).operations / 2


def ways_of(trainer: Trainer, most: int, clients: int) -> dict[str, Way]:
    """Return the ways in which clients of this model can train, by path, the default first.

    Args:
        trainer: of the run; where its configuration names a way, there is no other.
        most: steps that each takes, of all clients together, or a few more.
        clients: how many at once, at most.
    """
    make, config, device = partial(Way, trainer, most, clients), trainer.config, trainer.device
    if config.local.path != "auto":
        return {config.local.path: make(config.local.path)}
    batched = make("batched")
    traits = batched.trainer.traits
    ways = {"batched": batched} if traits.sequential is None else {}
    paths = ["sequential"]
    if device.type == "cpu" and traits.sequential is None and not traits.draws:
        paths.append("traced")
    if any(isinstance(module, nn.Conv2d) for module in trainer.above.modules()):
        paths.append("channels_last")
    for path in paths:
        ways[path] = make(path)
        ways[path].trainer.traits = traits  # of the model, whichever way it is trained
    return ways


def _measured(ways: dict[str, Way], threads: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the seconds that a client and step take on so many threads, by path."""
    with cpu_threads(threads):
        for way in ways.values():
            way.run(clock)
        seconds = {path: way.run(clock) for path, way in ways.items()}
        for _ in range(_REPEATS - 1):
            most = _HOPELESS * min(seconds.values())
            for path, least in seconds.items():
                if least < most:
                    seconds[path] = min(least, ways[path].run(clock))
        return seconds


def _fastest(ways: dict[str, Way], threads: Sequence[int], device: torch.device) -> Choice:
    # On one thread of a CPU, what else the machine does is not counted.
    alone = list(threads) == [1] and device.type == "cpu"
    clock = time.thread_time if alone else time.perf_counter
    seconds = {
        (path, count): each
        for count in threads
        for path, each in _measured(ways, count, clock).items()
    }
    best, *others = seconds
    for other in others:
        if seconds[other] < _MARGIN * seconds[best]:
            best = other
    times = ", ".join(
        f"{path} {f'on {count} threads ' if count > 1 else ''}{1e3 * each:.3g} ms"
        for (path, count), each in seconds.items()
    )
    return Choice(*best, f"a client's step took: {times}")


class Way:
    """Trains a few clients in one of the ways.

    Args:
        whole: the run's trainer.
        most: steps of all clients together, if each of two or more clients takes one.
        clients: how many, at most.
        path: the way.
    """

    def __init__(self, whole: Trainer, most: int, clients: int, path: str) -> None:
        local: LocalConfig = whole.config.local.model_copy(update={"path": path})
        data = whole.problem.data
        largest = int(np.argmax(data.sizes))
        alike = (data.tasks == data.tasks[largest]).all(1) & (data.sizes > 0)
        # What a client costs beside its steps counts as it does in a round.
        epoch = math.ceil(np.mean(data.sizes[alike]) / local.batch_size)
        steps = min(_STEPS, local.steps or epoch * (local.epochs or 1))
        few = min(clients, max(2, most // steps))
        self._clients = np.flatnonzero(alike)[:few]
        self._steps = max(1, min(steps, most // len(self._clients)))
        tried = Beginnings(data, self._steps * local.batch_size)
        config = whole.config.model_copy(update={"local": local})
        problem = replace(whole.problem, data=tried)
        self.trainer = Trainer(problem, config, whole.device, whole.model)
        self.trainer.parts = whole.parts

    def run(self, clock: Callable[[], float] = time.thread_time) -> float:
        """Return the seconds of a client's step, by ``clock``."""
        trainer, steps = self.trainer, 0
        received = trainer.layout.flat(trainer.model.state_dict())
        began = clock()
        for part in trainer.chunks(self._clients):
            ids = self._clients[part]
            cohort = trainer.cohort(ids, ids)
            fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
            private = {n: torch.stack([t] * len(ids)) for n, t in fresh.items()}
            shared = received.expand(len(ids), -1).clone()
            job = trainer.job(cohort, 1, received, {}, shared, private)
            job.descend(steps=self._steps)
            steps += int(job.steps.sum())
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        return (clock() - began) / steps
