"""The bare batched kernel: ``vmap`` of ``grad`` over 64 clients at a time, and nothing else.

On a GPU there are 1,024 at a time.

No messages, no private state, no shuffling, no checks: what any engine on top of it can at best
reach. On several threads it runs in as many processes, each with its share of the clients.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedjoint.model.layout import Layout
from fedjoint.node.node import best_device
from fedjoint.training.memory import keep_freed_memory

from .. import workloads
from ..workloads import Workload
from . import OnRound
from .sequential import trained, wait

CHUNK = {"cpu": 64, "cuda": 1024}


def measure(workload: Workload, clients: int, rounds: int, threads: int, on_round: OnRound) -> None:
    """Run the kernel in this process, or in ``threads`` others where there are several."""
    keep_freed_memory()
    kernel = Kernel(workload, workload.draws(clients))
    start = kernel.start
    if threads == 1:
        torch.set_num_threads(1)
        for _ in range(rounds):
            began = time.perf_counter()
            start = start + kernel.mean_update(start)
            wait(start.device)
            on_round(time.perf_counter() - began, {})
        return
    bounds = [clients * part // threads for part in range(threads + 1)]
    shares = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    start = kernel.start.cpu()
    with _processes(workload.name, clients, shares) as pipes:
        for _ in range(rounds):
            began = time.perf_counter()
            for pipe in pipes:
                pipe.send(start)
            for pipe, (a, b) in zip(pipes, shares, strict=True):
                start = start + pipe.recv() * ((b - a) / clients)
            on_round(time.perf_counter() - began, {})


class Kernel:
    """Trains clients in this process, on its GPU if it has one.

    Args:
        workload: what to train.
        draws: ``[clients, examples]`` the positions of the clients' examples.
    """

    def __init__(self, workload: Workload, draws: Tensor) -> None:
        device = best_device()
        model = workload.model().to(device)
        self._workload, self._chunk = workload, CHUNK[device.type]
        parameters = trained(model)
        self.layout = Layout.of(parameters)
        self.start = self.layout.flat(parameters)
        self._x, self._y = workload.x[draws].to(device), workload.y[draws].to(device)

        def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(model, weights, (x,)), y)

        self._gradients = vmap(grad(loss))

    def mean_update(self, start: Tensor) -> Tensor:
        """``[P]``, the mean over all clients of where they get to from ``start``, less it."""
        start = start.to(self._x.device)
        total = torch.zeros_like(start)
        for first in range(0, len(self._x), self._chunk):
            own = slice(first, first + self._chunk)
            x, y = self._x[own], self._y[own]
            weights = start.expand(len(x), -1).clone()
            views = self.layout.views(weights)
            made = self._workload
            for at in range(0, made.examples, made.batch):
                some = slice(at, at + made.batch)
                found = self._gradients(views, x[:, some], y[:, some])
                for name, parameter in views.items():
                    parameter.sub_(found[name], alpha=made.rate)
            total += weights.sub_(start).sum(0)
        return total / len(self._x)


@contextmanager
def _processes(
    workload: str, clients: int, shares: list[tuple[int, int]]
) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for share in shares:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(workload, clients, share, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    try:
        yield pipes
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join()


def _serve(workload: str, clients: int, share: tuple[int, int], pipe: Connection) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    made = workloads.workload(workload)
    kernel = Kernel(made, made.draws(clients)[slice(*share)])
    while (start := pipe.recv()) is not None:
        pipe.send(kernel.mean_update(start).cpu())
