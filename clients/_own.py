"""The private state of methods that train a model of the client's own beside the shared one."""

from __future__ import annotations

from fedjoint.training.method import Tensors

_PREFIX = "own."


def own_part(private: Tensors) -> Tensors:
    """Return the ``own.<name>`` tensors of ``private`` by ``name``, themselves and no copies."""
    return {n.removeprefix(_PREFIX): t for n, t in private.items() if n.startswith(_PREFIX)}
