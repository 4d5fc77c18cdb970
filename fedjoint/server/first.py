"""The first backbone: one seed gives one, so nodes that name another are wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.problem import build_problem
from fedjoint.protocol.description import Description

log = logging.getLogger("fedjoint.server.roster")

Backbone = Mapping[str, np.ndarray]

# Other processors round the numbers that are drawn otherwise.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5


def first_backbone(config: Config, found: Mapping[int, Description]) -> Backbone:
    """Return what the run begins with, of what nodes with one layout say that it is.

    Where they differ, it is what the configuration gives on the server, or else, where the server
    lacks what it takes to build the model, what more than half of the nodes say.

    Args:
        config: the run's.
        found: number -> the node.

    Raises:
        UserError: the nodes differ, the server cannot tell, and no half of them agree.
    """
    groups: list[list[int]] = []
    for node in sorted(found):
        for group in groups:
            if alike(found[node].initial, found[group[0]].initial):
                group.append(node)
                break
        else:
            groups.append([node])
    most = max(groups, key=len)
    if len(groups) == 1:
        return found[most[0]].initial
    own = _own(config, found[most[0]])
    if own is not None:
        return own
    if 2 * len(most) > len(found):
        return found[most[0]].initial
    named = ", ".join(found[group[0]].name for group in groups)
    raise UserError(
        f"nodes begin with different backbones, and no majority has the same: {named} and others "
        "differ; find out whose is wrong, or give model.initial"
    )


def alike(one: Backbone, other: Backbone) -> bool:
    """Return whether two backbones of one layout are the same but for rounding."""
    return all(np.allclose(one[n], other[n], _RELATIVE, _ABSOLUTE) for n in one)


def _own(config: Config, about: Description) -> Backbone | None:
    """Return the first backbone by the configuration; None where the server cannot make it."""
    try:
        model = build_problem(config).model(config)
        if model.layout() != about.layout:
            return None
        state = model.state_dict()
    except ANYTHING as error:  # data or code that the nodes alone have
        log.info("the server itself cannot build the model: %s", said(error))
        return None
    return {name: state[name].cpu().numpy() for name in about.layout.shapes}
