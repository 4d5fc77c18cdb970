"""Flower's SuperExec, whose apps start with PyTorch imported already."""

from __future__ import annotations

import multiprocessing
from importlib import import_module
from multiprocessing import forkserver

from flwr.supercore.cli import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.tls import validate_and_resolve_root_certificates
from flwr.supernode.runtime.run_clientapp import run_clientapp

# What takes an app seconds to import; none of fedjoint's own, as an app may bring another version.
_IMPORTED = [
    "flwr.supernode.runtime.run_clientapp",
    "pydantic",
    "safetensors.torch",
    "torch",
    "torch._dynamo",  # by every gradient under vmap
]


class Copies(SubprocessExecutor):
    """Starts every ClientApp as a copy of one process that has imported the libraries."""

    def __init__(self) -> None:
        self._copies = multiprocessing.get_context("forkserver")
        self._copies.set_forkserver_preload(_IMPORTED)
        forkserver.ensure_running()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the app that ``spec`` describes, as ``flwr-clientapp`` does."""
        if spec.task_type is not TaskType.CLIENT_APP:
            return super().launch(spec)
        trust = validate_and_resolve_root_certificates(spec.root_certificates_path, spec.insecure)
        options = {
            "runtime_api_address": spec.runtime_api_address,
            "token": spec.token,
            "insecure": spec.insecure,
            "certificates": trust,
            "parent_pid": spec.parent_pid,
            "runtime_dependency_install": spec.runtime_dependency_install,
        }
        self._copies.Process(target=run_clientapp, kwargs=options).start()
        return LaunchResult.accepted()

    def close(self) -> None:
        """End the apps that are running."""
        for app in multiprocessing.active_children():
            app.terminate()


def main() -> None:
    """Run the SuperExec of a SuperNode."""
    module = import_module("flwr.supercore.superexec.run_superexec")
    # Flower chooses among its own executors alone.
    module.get_executor = lambda *arguments, **options: Copies()  # type: ignore[attr-defined]
    flower_superexec()
