"""Averaged word embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedjoint.model.backbones._sentences import words_of
from fedjoint.model.backbones._widths import Widths
from fedjoint.model.inputs import Description
from fedjoint.options import Count


def text(inputs: Description, hidden: Widths = (64,), embedding: Count = 32) -> nn.Module:
    """Mean of word embeddings, then one ReLU layer, ``[n, words] -> [n, hidden[-1]]``.

    Args:
        inputs: what is read: sentences.
        hidden: the last is the number of features.
        embedding: size of a word embedding.

    Raises:
        UserError: inputs are no sentences.
    """
    return TextBackbone(words_of(inputs).vocabulary, embedding, hidden[-1])


class TextBackbone(nn.Module):
    """Mean of word embeddings over the words present (id 0 is padding), then one ReLU layer.

    Args:
        vocabulary: number of token ids.
        embedding: size of a word embedding.
        hidden: size of the features.
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int):
        super().__init__()
        self.words = nn.Embedding(vocabulary, embedding)
        self.layer = nn.Linear(embedding, hidden)

    def forward(self, x: Tensor) -> Tensor:
        present = (x != 0).unsqueeze(-1)
        mean = (self.words(x) * present).sum(1) / present.sum(1).clamp(min=1)
        return torch.relu(self.layer(mean))
