"""What inputs have to be like, for a model to take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedjoint.model.ids import Known, check_ids
from fedjoint.model.ragged import padded
from fedjoint.model.tree import Input, fitted


@dataclass(frozen=True)
class Likeness:
    """An input that others have to be like.

    Attributes:
        example: ``[1, ...]``.
        pad: what fills up those that are shorter, see :func:`fedjoint.model.ragged.checked_pad`.
        ids: which ids the model knows.
    """

    example: Input
    pad: Mapping[str, float] = field(default_factory=dict)
    ids: Known = field(default_factory=dict)

    def fitted(self, x: Input, who: str) -> Input:
        """Return ``[n, ...]`` inputs as the model takes them.

        Args:
            x: the inputs.
            who: whose they are, for the message.

        Raises:
            UserError: they are not like the example, not finite, or have ids that are not known.
        """
        x = fitted(padded(x, self.example, self.pad, who), self.example, who)
        check_ids(x, self.ids, who)
        return x
