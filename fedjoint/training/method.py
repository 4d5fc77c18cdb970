"""Local methods: what a client does with a backbone it received."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.options import make_plugin
from fedjoint.training.job import Job

Tensors = dict[str, Tensor]

#: Begins the names of what clients send to the strategy as a whole, see ``JointStrategy.hear``.
HEARD = "heard."


class LocalMethod:
    """Base class of the local methods: train the backbone and the heads together.

    A plug-in overrides :meth:`train`; options are the arguments of its ``__init__``. A job's
    backbones are P parameters and, after them, the numbers of the shared buffers, if any; what
    a strategy broadcasts is about the parameters alone (``job.layout.parameters``).

    Attributes:
        shares: whether clients send updates. If not, they keep their backbones to themselves.
        half_of: name of the strategy that the method belongs to, where it is of no use under
            another: what it needs is broadcast there, or what it changes is put right there.
        mu: what FedNova has to know of the steps on the shared backbone: 0 where they are the
            optimiser's own, mu where a gradient ``mu * (backbone - received)`` is added, None
            where they are neither.
        omits: in a few words, what of the paper that it is named after is left out.
    """

    shares: bool = True
    half_of: ClassVar[str] = ""
    mu: float | None = None
    omits: ClassVar[str] = ""

    def check_config(self, config: Config) -> None:
        """Refuse, before the first round, what the method is not made for.

        Args:
            config: the run's configuration.

        Raises:
            UserError: the line says what is wrong and how to put it right.
        """

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        """Return one client's fresh private state beyond heads, say a control variate ``[P]``."""
        return {}

    def train(self, job: Job) -> Tensors:
        """Train ``job.shared`` and ``job.private`` in place.

        Returns:
            ``[clients, ...]`` tensors to send beside the updates. Those whose names begin with
            ``heard.`` have one shape in all groups of clients, and a client may send none.
        """
        job.descend()
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        """Return the clients' backbones and the private state to evaluate.

        Returns:
            ``[clients, P + B]``, like ``job.shared``, or ``[clients, tasks, P + B]``, a backbone
            for each of their tasks.
        """
        return job.shared, job.private


def is_plain(method: LocalMethod) -> bool:
    """Return whether clients only descend, so that it is nobody's affair who trains beside whom."""
    own, base = type(method), LocalMethod
    return (own.private, own.train, own.personal) == (base.private, base.train, base.personal)


def make_method(name: str, options: Mapping[str, Any]) -> LocalMethod:
    """Return a local method by registered name or reference.

    Raises:
        UserError: there is none, or an option is wrong.
    """
    return make_plugin("methods", name, options, LocalMethod)
