"""Words left out."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.options import BelowOne, Whole
from fedjoint.training.augmentations._one import OneTensor


class WordDropout(OneTensor):
    """Replaces words by one that means nothing.

    Args:
        probability: of each word.
        by: id of the word that stands in; a word that is it already stays, such as padding.
        key: the tensor of ids, where inputs are a dict.

    Paper: Iyyer et al., "Deep Unordered Composition Rivals Syntactic Methods for Text
    Classification", ACL 2015, https://aclanthology.org/P15-1162
    """

    def __init__(self, probability: BelowOne = 0.1, by: Whole = 0, key: str = "") -> None:
        super().__init__(key)
        self.probability, self.by = probability, by

    def change(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            raise UserError("worddropout takes ids, and these inputs are numbers")
        return torch.where(torch.rand(x.shape, device=x.device) < self.probability, self.by, x)
