"""The first backbone: one seed gives one, so nodes that name another are wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.problem import build_problem
from fedjoint.protocol.description import Architecture

log = logging.getLogger("fedjoint.server.roster")

Backbone = Mapping[str, np.ndarray]

# Other processors round the numbers that are drawn otherwise.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5


def first_backbone(
    config: Config, group: str, found: Mapping[int, Architecture], name: Callable[[int], str]
) -> Backbone:
    """Return what a group begins with, of what nodes with one layout say that it is.

    Where they differ, it is what the configuration gives on the server, or else, where the server
    lacks what it takes to build the model, what more than half of the nodes say.

    Args:
        config: the run's.
        group: name of the group; empty where there is one architecture.
        found: number of a node -> the group, as the node has it.
        name: what people call a node.

    Raises:
        UserError: the nodes differ, the server cannot tell, and no half of them agree.
    """
    camps: list[list[int]] = []
    for node in sorted(found):
        for camp in camps:
            if alike(found[node].initial, found[camp[0]].initial):
                camp.append(node)
                break
        else:
            camps.append([node])
    most = max(camps, key=len)
    if len(camps) == 1:
        return found[most[0]].initial
    own = _own(config, group, found[most[0]])
    if own is not None:
        return own
    if 2 * len(most) > len(found):
        return found[most[0]].initial
    named = ", ".join(name(camp[0]) for camp in camps)
    raise UserError(
        f"nodes begin with different backbones, and no majority has the same: {named} and others "
        "differ; find out whose is wrong, or give model.initial"
    )


def alike(one: Backbone, other: Backbone) -> bool:
    """Return whether two backbones of one layout are the same but for rounding."""
    return all(np.allclose(one[n], other[n], _RELATIVE, _ABSOLUTE) for n in one)


def _own(config: Config, group: str, about: Architecture) -> Backbone | None:
    """Return the first backbone by the configuration; None where the server cannot make it."""
    try:
        model = build_problem(config).of(group).model(config)
        if model.layout() != about.layout:
            return None
        state = model.state_dict()
    except ANYTHING as error:  # data or code that the nodes alone have
        log.info("the server itself cannot build the model: %s", said(error))
        return None
    return {name: state[name].cpu().numpy() for name in about.layout.shapes}
