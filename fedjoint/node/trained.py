"""What the training of a few clients of a request gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedjoint.protocol.reports import ClientReports


@dataclass(frozen=True)
class Trained:
    """What the training of ``c`` clients gives.

    Attributes:
        rows: ``[c]`` int64, the clients' places in the request.
        blocks: ``[c]`` int64, the places of their blocks there, ascending.
        reports: a row for each.
        update: ``[c, P + B]``; ``[c, 0]`` where they share nothing.
        deviations: ``[c, tasks - 1, P]``, by how much the updates of their single tasks differ;
            ``[c, 0, P]`` where nobody asked.
        payload: what is to be sent instead of the update's P parameters, of those that are good,
            where updates are compressed.
        deviation_payload: the same of the deviations, client by client.
        extras: ``[c, ...]`` tensors of the local method.
        sent: bytes that one client sends, without deviations.
        within: ``[c, tasks, tasks]`` how the tasks of each client agree, NaN where unknown.
        backbone: ``[c]`` int64, which of several backbones each had; 0: there is one.
    """

    rows: np.ndarray
    blocks: np.ndarray
    reports: ClientReports
    update: Tensor
    deviations: Tensor
    payload: Mapping[str, Tensor]
    deviation_payload: Mapping[str, Tensor]
    extras: Mapping[str, Tensor]
    sent: int
    within: np.ndarray
    backbone: np.ndarray | int = 0

    @property
    def good(self) -> np.ndarray:
        """``[c]`` bool, whose training left nothing that is not finite."""
        return self.reports.good
