"""FedBABU: FedAvg of backbones under heads that stay as they were made.

The clients' half is :mod:`fedjoint.clients.babu`.
"""

from __future__ import annotations

from typing import Literal

from fedjoint.options import Count, Positive

from .fedavg import FedAvg


class FedBABU(FedAvg):
    """Clients train the backbone under heads that stay as they were made, and tune them last.

    Args:
        server_lr: factor on the mean update.
        tune: what clients tune before they are evaluated: ``head``, ``body`` or ``both``.
        tune_epochs: passes over their data for that; by default a round's budget.
        tune_at: ``evaluation``: before each; ``end``: in the last round alone.

    Paper: Oh, Kim and Yun, "FedBABU: Toward Enhanced Representation for Federated Image
    Classification", ICLR 2022, https://arxiv.org/abs/2106.06042
    """

    method = "babu"

    def __init__(
        self,
        server_lr: Positive = 1.0,
        tune: Literal["head", "body", "both"] = "head",
        tune_epochs: Count | None = None,
        tune_at: Literal["evaluation", "end"] = "evaluation",
    ) -> None:
        super().__init__(server_lr)
        self.method_options |= {"tune": tune, "tune_at": tune_at}
        if tune_epochs is not None:
            self.method_options["tune_epochs"] = tune_epochs
