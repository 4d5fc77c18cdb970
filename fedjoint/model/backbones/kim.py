"""Kim's convolutional network for sentences, with random embeddings (CNN-rand)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedjoint.model.backbones._sentences import Embedded, words_of
from fedjoint.model.backbones._widths import Widths
from fedjoint.model.inputs import Description
from fedjoint.options import BelowOne, Count


def kim(
    inputs: Description,
    embedding: Count = 300,
    maps: Count = 100,
    windows: Widths = (3, 4, 5),
    dropout: BelowOne = 0.5,
) -> nn.Module:
    """Convolutions over word embeddings, and maxima over time, ``[n, words] -> [n, features]``.

    For each window of h words, ``maps`` filters with ReLU, of each the maximum over the sentence:
    ``maps * len(windows)`` features, with dropout on them. Embeddings begin at random and train.

    Args:
        inputs: what is read: sentences.
        embedding: size of a word embedding.
        maps: filters of each window.
        windows: words that a filter spans.
        dropout: share of features dropped in training.

    Raises:
        UserError: inputs are no sentences.

    Paper: Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014,
    https://arxiv.org/abs/1408.5882. Left out: the bound on the length of a head's weights, in
    place of which ``local.optimiser.weight_decay`` may be set.
    """
    return Kim(words_of(inputs).vocabulary, embedding, maps, windows, dropout)


class Kim(nn.Module):
    """See :func:`kim`."""

    def __init__(
        self, vocabulary: int, embedding: int, maps: int, windows: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.words = Embedded(vocabulary, embedding)
        # As far as a filter reaches, so that every word meets all of its places.
        self.filters = nn.ModuleList(
            nn.Conv1d(embedding, maps, width, padding=width - 1) for width in windows
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.words(x).transpose(1, 2)
        maxima = [F.relu(convolve(embedded)).amax(2) for convolve in self.filters]
        return self.dropout(torch.cat(maxima, 1))
