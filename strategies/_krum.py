"""How far an update is from its nearest others, which Krum and Bulyan go by."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError

from ._cosines import squared_distances


def enough(rule: str, rows: int, malicious: int, needed: int) -> None:
    """Raise a UserError if a round has too few updates for ``malicious`` liars among them."""
    if malicious and rows < needed:
        raise UserError(
            f"{rule} with malicious = {malicious} needs {needed} clients a round, got {rows}: "
            "lower malicious or sample more clients"
        )


def liars(rows: int, bearable: int) -> int:
    """Return how many liars a rule reckons with where nobody has said how many there are.

    A fifth of the clients, rounded down: none of fewer than five, among whom nobody can tell.

    Args:
        rows: updates of the round.
        bearable: most liars that the rule bears among them.
    """
    return max(0, min(rows // 5, bearable))


def krum_scores(gram: Tensor, malicious: int) -> Tensor:
    """Return ``[rows]``, the summed squared distances of each update to its nearest others.

    Args:
        gram: ``[rows, rows]`` inner products of the updates.
        malicious: f; the nearest ``rows - f - 2`` others count. Without any, a round may be so
            small that this leaves nobody; then the nearest one counts.

    Raises:
        UserError: f is above zero, and there are fewer than ``2 * f + 3`` updates.
    """
    enough("krum", len(gram), malicious, 2 * malicious + 3)
    distance = squared_distances(gram).fill_diagonal_(torch.inf)
    nearest = min(max(1, len(gram) - malicious - 2), len(gram) - 1)
    return distance.sort().values[:, :nearest].sum(1)
