"""A small transformer encoder for sentences."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedjoint.errors import UserError
from fedjoint.model.backbones._sentences import Embedded, words_of
from fedjoint.model.inputs import Description
from fedjoint.options import BelowOne, Count


def transformer(
    inputs: Description,
    width: Count = 128,
    layers: Annotated[int, Field(ge=1, le=1000)] = 2,
    attention_heads: Count = 4,
    hidden: Count = 256,
    dropout: BelowOne = 0.1,
) -> nn.Module:
    """Self-attention over word embeddings, then their mean, ``[n, words] -> [n, width]``.

    Normalisation comes before each part of a layer (Xiong et al. 2020), so that no warm-up of the
    learning rate is needed. Positions are learnt; padding is neither attended to nor averaged.

    Args:
        inputs: what is read: sentences.
        width: size of a word's features, a multiple of ``attention_heads``.
        layers: how many.
        attention_heads: of each layer.
        hidden: size of the layers between.
        dropout: share of features dropped in training.

    Raises:
        UserError: inputs are no sentences, or ``width`` cannot be divided among the heads.

    Papers: Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
    https://arxiv.org/abs/1706.03762; Xiong et al., "On Layer Normalization in the Transformer
    Architecture", ICML 2020, https://arxiv.org/abs/2002.04745
    """
    if width % attention_heads:
        raise UserError(
            f"width = {width} is no multiple of attention_heads = {attention_heads}: change either"
        )
    words = words_of(inputs)
    each = [Layer(width, attention_heads, hidden, dropout) for _ in range(layers)]
    return Transformer(words.vocabulary, words.max_length, width, each, dropout)


class Transformer(nn.Module):
    """See :func:`transformer`."""

    def __init__(
        self, vocabulary: int, longest: int, width: int, layers: list[Layer], dropout: float
    ) -> None:
        super().__init__()
        self.words = Embedded(vocabulary, width)
        self.places = nn.Parameter(torch.randn(longest, width) / width**0.5)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        present = x != 0
        h = self.dropout(self.words(x) + self.places[: x.shape[1]])
        for layer in self.layers:
            h = layer(h, present)
        there = present.unsqueeze(-1)
        return (self.norm(h) * there).sum(1) / there.sum(1).clamp(min=1)


class Layer(nn.Module):
    """One layer: attention and a perceptron, each added to what it reads.

    PyTorch's own has a fused path for evaluation that ``torch.func.vmap`` cannot batch.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Return features ``[n, words, width]``; ``present`` ``[n, words]`` may be attended to."""
        h = h + self.dropout(self.mix(self._attend(self.before(h), present)))
        return h + self.dropout(self.narrow(F.gelu(self.widen(self.between(h)))))

    def _attend(self, h: Tensor, present: Tensor) -> Tensor:
        n, words, width = h.shape
        query, key, value = (
            part.view(n, words, self.heads, -1).transpose(1, 2)
            for part in self.project(h).chunk(3, 2)
        )
        scores = query @ key.transpose(2, 3) * (width // self.heads) ** -0.5
        # A large number and not infinity: where no word is present, attention stays finite.
        scores = scores.masked_fill(~present[:, None, None], -1e9)
        return (scores.softmax(3) @ value).transpose(1, 2).reshape(n, words, width)
