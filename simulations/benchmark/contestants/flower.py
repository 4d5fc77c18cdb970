"""Stock Flower: its own simulation runtime, a plain ClientApp, and its own FedAvg.

As Flower's tutorials do it, with what speeds it up: every actor keeps its model and the data,
an actor has one core, and nothing is evaluated.
"""

from __future__ import annotations

import logging
import time
import warnings
from functools import cache

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import Tensor, nn

from fedjoint.node.node import best_device

from .. import workloads
from ..workloads import Workload
from . import OnRound
from .sequential import train

client_app = ClientApp()


@client_app.train()
def train_client(message: Message, context: Context) -> Message:
    """Train the client that ``context`` names."""
    own = context.node_config
    config = message.content.config_records["config"]
    model, draws = _resident(str(config["workload"]), int(str(own["num-partitions"])))
    workload = workloads.workload(str(config["workload"]))
    index = draws[int(str(own["partition-id"]))]
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    device = next(model.parameters()).device
    train(model, workload.x[index].to(device), workload.y[index].to(device), workload)
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": workload.examples}),
        }
    )
    return Message(content, reply_to=message)


@cache
def _resident(workload: str, clients: int) -> tuple[nn.Module, Tensor]:
    torch.set_num_threads(1)
    made = workloads.workload(workload)
    return made.model().to(best_device()), made.draws(clients)


def measure(workload: Workload, clients: int, rounds: int, threads: int, on_round: OnRound) -> None:
    """Run Flower's FedAvg on ``threads`` actors."""
    app = ServerApp()

    @app.main()
    def serve(grid: Grid, _context: Context) -> None:
        ended = time.perf_counter()

        # Flower calls this before the first round and at the end of every one.
        def evaluate(server_round: int, _arrays: ArrayRecord) -> None:
            nonlocal ended
            now = time.perf_counter()
            if server_round:
                on_round(now - ended, {})
            ended = now

        strategy = FedAvg(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=clients,
        )
        strategy.start(
            grid,
            ArrayRecord(workload.model().state_dict()),
            num_rounds=rounds,
            timeout=float("inf"),
            train_config=ConfigRecord({"workload": workload.name}),
            evaluate_fn=evaluate,
        )

    logging.getLogger("flwr").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # run_simulation is deprecated for a command
    run_simulation(
        app,
        client_app,
        num_supernodes=clients,
        backend_config={
            "init_args": {"address": "local", "num_cpus": threads, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": torch.cuda.device_count() / threads},
        },
    )
