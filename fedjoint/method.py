"""Local methods: what a client does with a backbone it received."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedjoint.loading import construct, find
from fedjoint.model import JointModel
from fedjoint.tasks import Task
from fedjoint.training.job import Job

Tensors = dict[str, Tensor]


class Method:
    """Base class of the local methods: train the backbone and the heads together.

    A plug-in overrides :meth:`train`; options are the arguments of its ``__init__``. A job's
    backbones are P parameters and, after them, the numbers of the shared buffers, if any; what
    a strategy broadcasts is about the parameters alone (``job.layout.parameters``).

    Attributes:
        shares: whether clients send updates. If not, they keep their backbones to themselves.
    """

    shares: bool = True

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        """Return one client's fresh private state beyond heads, say a control variate ``[P]``."""
        return {}

    def train(self, job: Job) -> Tensors:
        """Train ``job.shared`` and ``job.private`` in place.

        Returns:
            ``[clients, ...]`` tensors to send beside the updates.
        """
        job.descend()
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        """Return the clients' backbones, like ``job.shared``, and the private state to evaluate."""
        return job.shared, job.private


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return a local method by registered name or reference.

    Raises:
        UserError: there is none, or an option is wrong.
    """
    return construct(f"local method {name}", find("methods", name), options)
