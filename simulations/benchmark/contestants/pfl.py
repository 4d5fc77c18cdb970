"""Apple's pfl-research: its SimulatedBackend, in one process per thread.

Needs the optional extra ``pfl``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import pfl  # noqa: F401 (missing: the contestant is skipped)
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import workloads
from ..workloads import Workload
from . import OnRound


def measure(workload: Workload, clients: int, rounds: int, threads: int, on_round: OnRound) -> None:
    """Run pfl in this process; where there are several threads, with others beside it."""
    others = []
    if threads > 1:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        task = [workload.name, str(clients), str(rounds)]
        others = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, *task],
                env=os.environ | _rank(rank, threads, port),
            )
            for rank in range(1, threads)
        ]
        os.environ |= _rank(0, threads, port)
    _run(workload, clients, rounds, on_round)
    for process in others:
        process.wait()


def _rank(rank: int, processes: int, port: int) -> dict[str, str]:
    """Return what torchrun sets, by which pfl finds the other processes."""
    return {
        "TORCHELASTIC_RUN_ID": "benchmark",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _run(workload: Workload, clients: int, rounds: int, on_round: OnRound) -> None:
    # pfl looks for other processes as it is imported.
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import MinimizeReuseUserSampler
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    draws = workload.draws(clients)
    users = list(range(clients))

    def user(number: int) -> Dataset:
        index = draws[number]
        return Dataset([workload.x[index], workload.y[index]], user_id=str(number))

    class Stamp(TrainingProcessCallback):
        def on_train_begin(self, *, model: Any) -> Metrics:
            self.ended = time.perf_counter()
            return Metrics()

        def after_central_iteration(
            self, aggregate_metrics: Any, model: Any, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            now = time.perf_counter()
            on_round(now - self.ended, {})
            self.ended = now
            return False, Metrics()

    data = FederatedDataset(user, MinimizeReuseUserSampler(users))
    model = _Model(workload.model())
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=clients,
            val_cohort_size=0,
        ),
        SimulatedBackend(data, data),
        PyTorchModel(model, torch.optim.SGD, torch.optim.SGD(model.parameters(), lr=1.0)),
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=workload.rate, local_batch_size=workload.batch
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Stamp()],
        send_metrics_to_platform=False,
    )


class _Model(nn.Module):
    """A model with the loss that pfl asks for."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.body(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {}


if __name__ == "__main__":
    _, name, clients, rounds = sys.argv
    _run(workloads.workload(name), int(clients), int(rounds), lambda seconds, parts: None)
