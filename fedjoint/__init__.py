"""Federated joint training: many tasks and clients share one backbone, data never moves."""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# fedjoint.strategies, .clients and .simulations lie beside this folder in the repository, and in it
# in an installed wheel. Under their bare names they would meet a user's own folders.
if not (Path(__file__).parent / "strategies").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

# Before Flower or Ray is imported: no telemetry unless the user asked for it.
for _name, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}.items():
    os.environ.setdefault(_name, _value)

if TYPE_CHECKING:
    from fedjoint.config.data import DataConfig
    from fedjoint.config.schema import Config
    from fedjoint.data.base import Client, Examples
    from fedjoint.data.dataset import Dataset
    from fedjoint.data.source import Source
    from fedjoint.engines.base import Engine
    from fedjoint.errors import UserError
    from fedjoint.exports.export import export
    from fedjoint.exports.exported import Exported
    from fedjoint.model.each_item import EachItem
    from fedjoint.model.groups import Group
    from fedjoint.model.inputs import Inputs
    from fedjoint.model.kinds.language import next_tokens
    from fedjoint.model.loss import PositionLoss, TaskLoss
    from fedjoint.model.metric import Metric
    from fedjoint.model.stream import Stream
    from fedjoint.model.tasks import Task
    from fedjoint.problem import Problem
    from fedjoint.protocol.compression import Compression
    from fedjoint.runs.record import RoundRecord
    from fedjoint.runs.result import RunResult
    from fedjoint.server.callbacks import Callback, Snapshot
    from fedjoint.server.candidates import Budget, Candidates
    from fedjoint.server.steps import Steps
    from fedjoint.server.strategy import JointStrategy
    from fedjoint.server.updates import Updates
    from fedjoint.simulation import resume, simulate
    from fedjoint.training.augment import Augmentation
    from fedjoint.training.balance import Balance
    from fedjoint.training.job import Job
    from fedjoint.training.method import LocalMethod

# Imported where they are used: servers and nodes start without PyTorch.
_MODULES = {
    "Augmentation": "fedjoint.training.augment",
    "Balance": "fedjoint.training.balance",
    "Budget": "fedjoint.server.candidates",
    "Callback": "fedjoint.server.callbacks",
    "Candidates": "fedjoint.server.candidates",
    "Client": "fedjoint.data.base",
    "Compression": "fedjoint.protocol.compression",
    "Config": "fedjoint.config.schema",
    "DataConfig": "fedjoint.config.data",
    "Dataset": "fedjoint.data.dataset",
    "EachItem": "fedjoint.model.each_item",
    "Engine": "fedjoint.engines.base",
    "Examples": "fedjoint.data.base",
    "Exported": "fedjoint.exports.exported",
    "Group": "fedjoint.model.groups",
    "Inputs": "fedjoint.model.inputs",
    "Job": "fedjoint.training.job",
    "JointStrategy": "fedjoint.server.strategy",
    "LocalMethod": "fedjoint.training.method",
    "Metric": "fedjoint.model.metric",
    "PositionLoss": "fedjoint.model.loss",
    "Problem": "fedjoint.problem",
    "RoundRecord": "fedjoint.runs.record",
    "RunResult": "fedjoint.runs.result",
    "Snapshot": "fedjoint.server.callbacks",
    "Source": "fedjoint.data.source",
    "Steps": "fedjoint.server.steps",
    "Stream": "fedjoint.model.stream",
    "Task": "fedjoint.model.tasks",
    "TaskLoss": "fedjoint.model.loss",
    "Updates": "fedjoint.server.updates",
    "UserError": "fedjoint.errors",
    "export": "fedjoint.exports.export",
    "next_tokens": "fedjoint.model.kinds.language",
    "resume": "fedjoint.simulation",
    "simulate": "fedjoint.simulation",
}

__version__ = "0.1.0"
__all__ = [
    "Augmentation",
    "Balance",
    "Budget",
    "Callback",
    "Candidates",
    "Client",
    "Compression",
    "Config",
    "DataConfig",
    "Dataset",
    "EachItem",
    "Engine",
    "Examples",
    "Exported",
    "Group",
    "Inputs",
    "Job",
    "JointStrategy",
    "LocalMethod",
    "Metric",
    "PositionLoss",
    "Problem",
    "RoundRecord",
    "RunResult",
    "Snapshot",
    "Source",
    "Steps",
    "Stream",
    "Task",
    "TaskLoss",
    "Updates",
    "UserError",
    "export",
    "next_tokens",
    "resume",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value
