"""The next token of a sequence: labels ``[n, length]``, the ids of the tokens that follow."""

from __future__ import annotations

from torch import Tensor

from fedjoint.model.kinds.tokens import Tokens
from fedjoint.model.metrics.perplexity import perplexity


class Language(Tokens):
    """Labels ``[n, length]`` int64, outputs ``[n, length, vocabulary]``.

    The backbone must be causal: what it makes of a position may not depend on later ones.
    """

    name = "language"
    counts = "tokens"
    metric = perplexity


def next_tokens(ids: Tensor, padding: int | None = None) -> Tensor:
    """Return the labels ``[n, length]`` of ids ``[n, length]``: of each position the id after it.

    Args:
        ids: int64.
        padding: an id that is no token: nothing is learnt of it, nor of what follows it.
    """
    y = ids.roll(-1, 1)
    y[:, -1] = -1
    if padding is not None:
        y[(y == padding) | (ids == padding)] = -1
    return y
