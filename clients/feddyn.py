"""FedDyn's local method: a regulariser that learns.

The server's half is :mod:`fedjoint.strategies.feddyn`.
"""

from __future__ import annotations

from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.options import Positive
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors

from ._pull import check_pull


class FedDyn(LocalMethod):
    """Minimise ``loss - <g_i, backbone> + alpha / 2 * |backbone - received|^2``.

    Then ``g_i <- g_i - alpha * update``, private state ``dual`` ``[P]``, of the parameters.

    Args:
        alpha: strength of the regularisation.

    Paper: Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021,
    https://arxiv.org/abs/2111.04263
    """

    half_of = "feddyn"

    def __init__(self, alpha: Positive) -> None:
        self.alpha = alpha

    def check_config(self, config: Config) -> None:
        check_pull("alpha", self.alpha, config)

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {"dual": received.new_zeros(model.layout().parameters.size)}

    def train(self, job: Job) -> Tensors:
        old = job.private["dual"]
        dual, start = job.layout.parameters.views(old), job.layout.views(job.start)

        def regularise(gradients: Tensors, parameters: Tensors, _active: Tensor | None) -> None:
            for name in gradients.keys() & dual.keys():
                pull = self.alpha * (parameters[name] - start[name])
                gradients[name] = gradients[name] - dual[name] + pull

        job.descend(correct=regularise)
        job.private["dual"] = old - self.alpha * (job.shared - job.start)[:, : old.shape[1]]
        return {}
