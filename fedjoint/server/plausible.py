"""Is what a node says of its clients plausible, beside what the other nodes say?"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fedjoint.errors import UserError
from fedjoint.protocol.description import Description

_FEWEST = 3  # nodes, of which one that differs stands out
_TIMES = 1000  # most that a client's size is of the median


def check_plausible(about: Description, others: Collection[Description]) -> None:
    """Refuse a node that claims much more than the others do.

    A task that no other node has is one that a client brings: a node has no more of these than
    clients. And no client has more than a thousand times as many training examples as the median
    of the other nodes' clients: sizes decide weights.

    Args:
        about: the node.
        others: the other nodes; with fewer than two, nobody can tell.

    Raises:
        UserError: its tasks or its sizes are not plausible.
    """
    if len(others) + 1 < _FEWEST:
        return
    known = {task.name for other in others for task in other.tasks}
    own = [task.name for task in about.tasks if task.name not in known]
    if len(own) > max(1, len(about.ids)):
        raise UserError(
            f"it has {len(own)} tasks that no other node has, and {len(about.ids)} clients"
        )
    sizes = np.concatenate([other.sizes for other in others])
    usual = float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 0.0
    if usual and about.sizes.max(initial=0) > _TIMES * usual:
        client, size = about.ids[about.sizes.argmax()], about.sizes.max()
        raise UserError(
            f"client {client} is said to have {size} training examples, more than {_TIMES} times "
            f"the other nodes' median, {usual:g}"
        )
