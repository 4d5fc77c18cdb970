"""Federated joint training: many tasks and clients share one backbone, data never moves."""

import os

# Before Flower or Ray is imported: no telemetry unless the user asked for it.
for _name, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}.items():
    os.environ.setdefault(_name, _value)

from fedjoint.data.base import Client, Examples  # noqa: E402
from fedjoint.errors import UserError  # noqa: E402
from fedjoint.model.tasks import Task  # noqa: E402
from fedjoint.problem import Problem  # noqa: E402
from fedjoint.server.strategy import JointStrategy  # noqa: E402
from fedjoint.server.updates import Updates  # noqa: E402
from fedjoint.simulation import RunResult, simulate  # noqa: E402

__version__ = "0.1.0"
__all__ = [
    "Client",
    "Examples",
    "JointStrategy",
    "Problem",
    "RunResult",
    "Task",
    "Updates",
    "UserError",
    "simulate",
]
