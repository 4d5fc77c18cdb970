"""What the splits of several seeds have in common, which decides how wide an interval is."""

from __future__ import annotations

from fedjoint.config.schema import Config
from fedjoint.data.build import make_source
from fedjoint.data.loading import load_client
from fedjoint.problem import Problem


def overlap(config: Config, problem: Problem) -> float:
    """Return test over training examples where seeds split one data set; 0 where it is drawn anew.

    Args:
        config: the run of the first seed.
        problem: its problem. Every client's data are made.
    """
    if config.problem is None and make_source(config.data.source).generated:
        return 0.0
    clients = range(len(problem.data.sizes))
    tested = sum(len(load_client(problem.data, index).test) for index in clients)
    return tested / int(problem.data.sizes.sum())
