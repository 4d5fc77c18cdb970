"""The clients of one group, under their own positions."""

from __future__ import annotations

import numpy as np

from fedjoint.data.around import Around
from fedjoint.data.base import Federation


class OfGroup(Around):
    """``data``, in which whoever is not in the group has no examples, and is never asked for any.

    Args:
        data: of all clients.
        member: ``[clients]`` bool, who is in the group.

    Attributes:
        held: ``[tasks]`` bool, which tasks any of them has; all, where nobody has any.
    """

    def __init__(self, data: Federation, member: np.ndarray) -> None:
        super().__init__(data)
        self.sizes = np.where(member, data.sizes, 0)
        held = data.tasks[member].any(0)
        self.held = held if held.any() else ~held
