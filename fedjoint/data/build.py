"""The configuration's data source."""

from __future__ import annotations

from fedjoint.config.data import SourceConfig
from fedjoint.data.source import Source
from fedjoint.options import make_plugin


def make_source(config: SourceConfig) -> Source:
    """Return the data source that is named.

    Raises:
        UserError: there is none, an option is wrong, or it is no Source.
    """
    return make_plugin("sources", config.name, config.options, Source)
