"""Krum: the update with the closest neighbours."""

from __future__ import annotations

from fedjoint.options import Whole

from .multikrum import MultiKrum


class Krum(MultiKrum):
    """The one update with the lowest :func:`krum_scores`; weights play no part.

    Breakdown point: as :class:`MultiKrum`.

    Args:
        malicious: number f of clients that may send anything; if any, a round needs
            ``2 * f + 3`` clients. None: a fifth of them.

    Raises:
        UserError: a round has too few updates.

    Paper: as :class:`MultiKrum`.
    """

    def __init__(self, malicious: Whole | None = None) -> None:
        super().__init__(malicious, select=1)
