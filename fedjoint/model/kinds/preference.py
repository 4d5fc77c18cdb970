"""Which of several items is preferred: a pair, or more, in each example.

An example is ``[items, ...]``, and each item gets a score from the same backbone and head; the
probability that one is preferred is the softmax of the scores, of two the logistic function of
their difference (Bradley and Terry 1952; RankNet, Burges et al., ICML 2005, without its ties).
"""

from __future__ import annotations

from torch import nn

from fedjoint.errors import UserError
from fedjoint.model.features import Features, Shape
from fedjoint.model.heads import ItemHead, default_head
from fedjoint.model.kind import Size
from fedjoint.model.kinds.multiclass import Multiclass


class Preference(Multiclass):
    """Labels ``[n]`` int64, the item preferred; outputs ``[n, items]``, their scores."""

    name = "preference"
    counts = "items"

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        def make(shape: Shape) -> nn.Module:
            assert not isinstance(shape, int)
            if shape[0] != outputs:
                raise UserError(
                    f"the backbone makes features of {shape[0]} items, and there are {outputs}"
                )
            return ItemHead(shape[1])

        return default_head(features, (2,), make)
