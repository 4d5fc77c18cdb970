"""How many clients one job takes: as many as pay, and as fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Most clients in one batched program on the CPU and on a GPU.
_MOST_CPU, _MOST_GPU = 256, 1024

#: Bytes that their weights and examples may take on the CPU; gradients take as much again.
_BYTES = 64 << 20

#: Bytes that stay in the processor's cache, and clients that pay for starting the operations.
_CACHED, _STARTED = 8 << 20, 32

#: Share of a GPU's memory that a job may take, beside the clients' data.
_SHARE = 0.7


@dataclass(frozen=True)
class Need:
    """Bytes that one client of a job takes.

    Attributes:
        weights: of its own model.
        examples: of a pass over the model.
        computed: by the model from those examples; on the CPU it counts where parts of the model
            are frozen, as what trains may then be small beside what the rest computes.
    """

    weights: int
    examples: int
    computed: int


def most_on_cpu(need: Need) -> int:
    """Return how many clients one job takes on the CPU, by the need of a client."""
    one = need.weights + need.examples
    most = min(_MOST_CPU, max(_STARTED, _CACHED // one))
    return max(1, min(most, _BYTES // (one + need.computed)))


def most_on_gpu(need: Need, memory: int) -> int:
    """Return how many clients one job takes on a GPU.

    Where the estimate is too low, the job is divided, see :meth:`fedjoint.node.jobs.Jobs.attempt`.

    Args:
        need: of a client. Weights count five times: what is sent, what is trained, gradient,
            momentum and update; what is computed three times: kept for the backward pass, its
            gradient, and room for what an operation takes while it runs.
        memory: bytes that the worker may use.
    """
    one = 5 * need.weights + need.examples + 3 * need.computed
    return max(1, min(_MOST_GPU, int(_SHARE * memory) // one))


def gpu_memory(device: torch.device, workers: int, data: int) -> int:
    """Return the bytes of GPU memory that each of ``workers`` may use beside ``data`` bytes."""
    total = torch.cuda.get_device_properties(device).total_memory
    return max(0, total // workers - data)
