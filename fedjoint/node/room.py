"""What a node has of one group of its clients: all that depends on their architecture."""

from __future__ import annotations

from fedjoint.config.schema import Config
from fedjoint.node.evaluate import Evaluation
from fedjoint.node.jobs import Jobs
from fedjoint.node.mods import Mods
from fedjoint.node.train import Training
from fedjoint.protocol.description import Architecture


class Room:
    """Where the clients of one group are trained and evaluated.

    Args:
        jobs: makes their jobs.
        least: fewest examples of a client whose losses and metrics are told.
        deployed: whether the clients live here alone.
        mods: what updates pass before they are sent; None: nothing.
    """

    def __init__(self, jobs: Jobs, least: int, *, deployed: bool, mods: Mods | None = None) -> None:
        self.trainer = jobs.trainer
        self.training = Training(jobs, least, mods)
        self.evaluation = Evaluation(jobs, least, together=deployed)

    def describe(self, *, initial: bool) -> Architecture:
        """Say what the clients train; with the initial backbone, where asked."""
        trainer = self.trainer
        state = trainer.model.state_dict() if initial else {}
        frozen = trainer.model.frozen() if initial else {}
        return Architecture(
            layout=trainer.layout,
            initial={name: state[name].cpu().numpy() for name in trainer.layout.shapes if state},
            digest=trainer.digest,
            frozen={name: tensor.cpu().numpy() for name, tensor in frozen.items()},
        )


def with_room(config: Config, groups: int) -> Config:
    """Return ``config`` with the memory for data that each of ``groups`` groups may take."""
    each = max(1, config.engine.data_mb // max(1, groups))
    return config.model_copy(update={"engine": config.engine.model_copy(update={"data_mb": each})})
