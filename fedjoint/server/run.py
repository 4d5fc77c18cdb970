"""What the server of a run carries from one round to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.protocol import messages
from fedjoint.protocol.arrays import to_record
from fedjoint.runs.ledger import Ledger
from fedjoint.server.callbacks import Callback
from fedjoint.server.population import Asked
from fedjoint.server.reference import Reference
from fedjoint.server.roster import Roster
from fedjoint.server.strategy import (
    Circumstances,
    JointStrategy,
    checked_broadcast,
    circumstances,
    local_method,
)


@dataclass
class Run:
    """A run, as its server has it.

    Attributes:
        config: its configuration.
        path: the run directory.
        grid: reaches the nodes.
        strategy: merges.
        roster: the nodes and their clients.
        callbacks: hear how the run goes.
        reference: independent training to compare with, where the configuration names any.
        generation: how often the run was resumed.
        resumed_from: the round of the checkpoint that it goes on from; 0: none.
        durable: the round of the newest checkpoint; 0: none.
        ledger: the last round of each client that was merged.
        backbone: ``[P]`` parameters and, after them, the shared buffers.
    """

    config: Config
    path: Path
    grid: Grid
    strategy: JointStrategy
    roster: Roster
    callbacks: Sequence[Callback]
    reference: Reference | None
    generation: int
    resumed_from: int
    durable: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    backbone: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        self.durable = self.resumed_from

    @property
    def circumstances(self) -> Circumstances:
        """What the strategy may know of the run."""
        known = circumstances(self.strategy)
        assert known is not None, "made by make_strategy"
        return known

    @property
    def shares(self) -> bool:
        """Whether clients send updates."""
        return self.circumstances.method.shares

    def discover(self) -> None:
        """Find out who is there.

        Raises:
            UserError: see :meth:`fedjoint.server.roster.Roster.discover`.
        """
        self.roster.discover(self.grid, self.request(0))
        people = self.roster.people
        self.circumstances.clients = people.ids[people.sizes > 0]

    @property
    def parameters(self) -> Tensor:
        """``[P]``, a copy of the backbone's parameters: plug-ins may do to it what they like."""
        return self.backbone[: self.roster.layout.parameters.size].clone()

    def named(self) -> dict[str, Tensor]:
        """Return the backbone by name, in memory of its own."""
        return {n: t.clone() for n, t in self.roster.layout.views(self.backbone).items()}

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def request(self, round: int) -> dict[str, Any]:
        """Return what every request says."""
        method, options = local_method(self.strategy, self.config)
        return {
            "run": str(self.path.resolve()),
            "round": round,
            "generation": self.generation,
            "resumed_from": self.resumed_from,
            "durable": self.durable,
            "config": self._settings,
            "method": method,
            "method_options": options,
        }

    def broadcast(self, round: int) -> tuple[dict[str, ArrayRecord], int]:
        """Return what every client receives: records by name, and how many bytes they have.

        Raises:
            UserError: the strategy's broadcast fails.
        """
        extra = checked_broadcast(self.strategy, self.parameters, round)
        views = {n: t.contiguous() for n, t in self.roster.layout.views(self.backbone).items()}
        records = {"backbone": to_record(views), "broadcast": to_record(extra)}
        return records, 4 * self.backbone.numel() + sum(t.nbytes for t in extra.values())

    def send(
        self,
        kind: str,
        asked: Mapping[int, Asked],
        settings: Mapping[str, Any],
        records: Mapping[str, ArrayRecord],
        compared: np.ndarray,
    ) -> Iterable[Message]:
        """Send every node what it is asked; return the replies as they arrive.

        Args:
            kind: of message.
            asked: node -> its clients.
            settings: of the request.
            records: what all of them receive.
            compared: ids of clients whose updates are wanted one by one.
        """
        timeout = self.config.strategy.timeout
        sent = []
        for node, share in asked.items():
            plan = {
                "clients": share.clients,
                "weights": share.weights,
                "blocks": share.blocks,
                "sizes": share.sizes,
                "sampled": np.isin(share.clients, compared),
                "counts": self.ledger.of(share.clients),
            }
            content = messages.pack(settings, **records, plan=plan)
            sent.append(Message(content, node, kind, ttl=timeout))
        return self.grid.send_and_receive(sent, timeout=timeout)
