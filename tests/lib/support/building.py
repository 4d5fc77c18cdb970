"""The data that settings describe, without a problem around them."""

from fedjoint.data.build import make_source


def build_data(config, seed, ids=None):
    """Return the tasks, the clients and ``[1, ...]`` an input."""
    return make_source(config.source).build(config, seed, ids)
