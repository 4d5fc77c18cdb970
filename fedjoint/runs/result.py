"""What a run leaves, for whoever reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.whole import check_whole


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Attributes:
        path: the run directory.
        config: the resolved configuration.
        records: one per round.
        backbone: the final backbone's tensors, by name: shared ones, and those that do not train;
            of several backbones their weighted mean; see :func:`fedjoint.export` for each.
    """

    path: Path
    config: Config
    records: list[RoundRecord]
    backbone: dict[str, Tensor]

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The last evaluation: split -> task -> value."""
        done = [record.evaluation for record in self.records if record.evaluation]
        return done[-1] if done else {}

    @property
    def best(self) -> Checkpoint | None:
        """The best round by validation, its backbone and ledger (``output.keep_best``)."""
        return RunDir(self.path).best()

    def heads(self) -> dict[int, dict[str, Tensor]]:
        """Return the private state of every client that trained, by id.

        Raises:
            UserError: the run directory is not as the run left it.
        """
        run = RunDir.open(self.path)
        newest = check_whole(run).newest
        if newest is None:
            return {}
        clients, rounds = newest.ledger.clients.tolist(), newest.ledger.rounds.tolist()
        return run.states.read(clients, rounds)
