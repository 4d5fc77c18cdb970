"""The plug-ins of a run, checked before there is one."""

from __future__ import annotations

from fedjoint.config.schema import Config
from fedjoint.protocol.compression import make_compression
from fedjoint.server.callbacks import make_callbacks
from fedjoint.server.strategy import make_strategy
from fedjoint.training.augment import make_augmentations


def check_plugins(config: Config) -> None:
    """Refuse names and options that a run would stumble over, before any data is read.

    Raises:
        UserError: a name or an option is wrong, or two of them do not go together.
    """
    make_strategy(config)
    if config.strategy.compression.name != "none":
        make_compression(config.strategy.compression)
    make_callbacks(config.callbacks)
    make_augmentations(config.local.augment)
