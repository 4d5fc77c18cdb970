"""Several backbones at the clients: each takes the one that is its own, or that suits it best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedjoint.training.job import Job, Tensors


def take_backbones(
    job: Job,
    backbones: Tensor,
    received: np.ndarray,
    new: np.ndarray,
    fresh: Callable[[Tensor], Tensors],
) -> None:
    """Put every client of a job onto its own backbone.

    Args:
        job: not trained yet; its ``received``, ``start`` and ``shared`` become ``[clients, P]``,
            and ``backbone`` says which each has.
        backbones: ``[k, P]``.
        received: ``[clients]`` int64, which each is to have; -1: that of the lowest loss on its
            training data.
        new: ``[clients]`` bool, whose private state is fresh.
        fresh: makes the private state of a client that never trained, of the backbone it received.
    """
    chosen = torch.from_numpy(received.copy()).to(job.shared.device)
    if (chosen < 0).any():
        chosen = torch.where(chosen < 0, best_of(job, backbones), chosen)
    first_time = torch.from_numpy(new).to(chosen.device)
    for one in chosen[first_time].unique().tolist():
        for name, tensor in fresh(backbones[one]).items():
            job.private[name][first_time & (chosen == one)] = tensor
    job.received = job.start = backbones[chosen]
    job.shared = job.start.clone()
    job.backbone = chosen


def best_of(job: Job, backbones: Tensor) -> Tensor:
    """``[clients]`` int64, which of ``backbones`` ``[k, P]`` has each client's lowest loss.

    One that has grown until its losses are undefined is nobody's.
    """
    losses = [job.loss(backbone.expand_as(job.shared)) for backbone in backbones]
    return torch.stack(losses).nan_to_num(nan=torch.inf).argmin(0)
