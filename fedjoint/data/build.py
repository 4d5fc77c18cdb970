"""The configuration's data -> tasks and clients."""

from __future__ import annotations

from collections.abc import Sequence

from fedjoint.config.data import DataConfig, SourceConfig
from fedjoint.data.source import Built, Source
from fedjoint.options import make_plugin


def make_source(config: SourceConfig) -> Source:
    """Return the data source that is named.

    Raises:
        UserError: there is none, an option is wrong, or it is no Source.
    """
    return make_plugin("sources", config.name, config.options, Source)


def build_data(config: DataConfig, seed: int, ids: Sequence[int] | None = None) -> Built:
    """Build the tasks, the clients and one example input.

    Tasks that no client has are left out. The same ``config`` and ``seed`` give the same data.

    Args:
        config: the ``data`` table.
        seed: decides the partition, the splits and whatever is generated.
        ids: the clients' ids, where the data is that of a few of the clients.

    Returns:
        The tasks, the federation, and ``[1, ...]`` an input, to find the shapes of a model.

    Raises:
        UserError: the data is missing, malformed, or does not suffice for the clients, or they
            are not as many as ``ids``.
    """
    return make_source(config.source).build(config, seed, ids)
