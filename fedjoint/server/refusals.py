"""Rounds in a row in which a strategy made no step, for one reason."""

from __future__ import annotations

from fedjoint.errors import UserError

#: So many such rounds end a run: the next would go as they did.
MOST = 10


class Refusals:
    """Counts the rounds in a row whose merge failed for the reason of the last one."""

    def __init__(self) -> None:
        self._why, self._count = "", 0

    def none(self) -> None:
        """Note that a merge did not fail."""
        self._count = 0

    def one(self, why: str, round: int) -> None:
        """Note that the merge of a round failed.

        Raises:
            UserError: the last :data:`MOST` merges did, for the same reason.
        """
        self._count = self._count + 1 if self._count and why == self._why else 1
        self._why = why
        if self._count >= MOST:
            raise UserError(
                f"{MOST} rounds in a row, to round {round}, have not merged for one reason: {why}; "
                "fix that, and resume the run or start a new one"
            )
