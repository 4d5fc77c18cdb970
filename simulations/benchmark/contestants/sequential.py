"""Plain PyTorch: one client after the other, averaged on the fly."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedjoint.node.node import best_device
from fedjoint.training.memory import keep_freed_memory

from ..workloads import Workload
from . import OnRound


def measure(workload: Workload, clients: int, rounds: int, threads: int, on_round: OnRound) -> None:
    """Loop over the clients in this process; ``threads`` are PyTorch's."""
    keep_freed_memory()  # as our engine does, which is no merit of its own
    torch.set_num_threads(threads)
    device = best_device()
    model, draws = workload.model().to(device), workload.draws(clients)
    x, y = workload.x[draws].to(device), workload.y[draws].to(device)
    start = {name: tensor.clone() for name, tensor in trained(model).items()}
    for _ in range(rounds):
        began = time.perf_counter()
        start = average(model, start, x, y, workload)
        wait(device)
        on_round(time.perf_counter() - began, {})


def wait(device: torch.device) -> None:
    """Wait until ``device`` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Return what trains of ``model``, by name: tensors of its own."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def average(
    model: nn.Module, start: dict[str, Tensor], x: Tensor, y: Tensor, workload: Workload
) -> dict[str, Tensor]:
    """Train every client from ``start`` and return the mean of what they arrive at."""
    mean = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    for client in range(len(x)):
        for name, tensor in trained(model).items():
            tensor.copy_(start[name])
        train(model, x[client], y[client], workload)
        for name, tensor in trained(model).items():
            mean[name].add_(tensor, alpha=1 / len(x))
    return mean


def train(model: nn.Module, x: Tensor, y: Tensor, workload: Workload) -> None:
    """Train on one client's examples, once over in random order."""
    optimiser = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=workload.rate
    )
    for index in torch.randperm(len(x), device=x.device).split(workload.batch):
        optimiser.zero_grad()
        F.cross_entropy(model(x[index]), y[index]).backward()
        optimiser.step()
