"""FedProto: clients share the mean features of classes in place of weights.

The clients' half is :mod:`fedjoint.clients.fedproto`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedjoint.options import NotNegative, Positive

from .fedavg import FedAvg


class FedProto(FedAvg):
    """Prototypes ``C_c = sum_i sums_i[c] / sum_i counts_i[c]`` of the classes of every task.

    So a prototype is the mean feature of a class over all clients' examples of it, whatever their
    models, which need as many features each. A class that nobody has this round keeps the prototype
    that it had. The state holds ``prototypes/<task>`` ``[classes, F]`` and ``seen/<task>``
    ``[classes]``, one where a class has a prototype, else zero.

    Args:
        pull: how strongly features are pulled to their class's prototype; the paper's lambda.
        merge: merge backbones, too, by their mean (within groups, where clients are in groups). In
            the paper every client keeps its own.
        server_lr: factor on the mean update, where backbones are merged.

    Paper: Tan et al., "FedProto: Federated Prototype Learning across Heterogeneous Clients",
    AAAI 2022, https://arxiv.org/abs/2105.00243
    """

    method = "fedproto"
    omits = "prediction by the nearest prototype"

    def __init__(
        self, pull: NotNegative = 1.0, merge: bool = False, server_lr: Positive = 1.0
    ) -> None:
        super().__init__(server_lr)
        self.method_options |= {"pull": pull, "merge": merge}

    def hear(self, told: Mapping[str, Tensor]) -> None:
        for name in told:
            kind, _, task = name.partition("/")
            if kind == "sums":
                self.state |= self._prototypes(task, told[name], told[f"counts/{task}"])

    def _prototypes(self, task: str, sums: Tensor, counts: Tensor) -> dict[str, Tensor]:
        total, count = sums.double().sum(0), counts.double().sum(0)
        new = (total / count.clamp(min=1)[:, None]).float()
        old = self.state.get(f"prototypes/{task}", torch.zeros_like(new))
        seen = self.state.get(f"seen/{task}", torch.zeros_like(count))
        return {
            f"prototypes/{task}": torch.where(count[:, None] > 0, new, old),
            f"seen/{task}": ((seen > 0) | (count > 0)).float(),
        }

    def tell(self) -> dict[str, Tensor]:
        return dict(self.state)
