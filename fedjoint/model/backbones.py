"""Backbones by name: a multi-layer perceptron, a small CNN, and averaged word embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mlp(inputs: int, hidden: Sequence[int]) -> nn.Module:
    """ReLU layers ``[n, inputs] -> [n, hidden[-1]]``; longer inputs are flattened."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in itertools.pairwise(sizes):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers)


def cnn(shape: Sequence[int], channels: Sequence[int], norm: bool = False) -> nn.Module:
    """3x3 convolutions with ReLU and 2x2 pooling, then flattened.

    Args:
        shape: ``(channels, height, width)`` of the input; ``(height * width,)`` is taken as one
            square channel.
        channels: output channels of each convolution.
        norm: put BatchNorm after each convolution.
    """
    if len(shape) == 1:
        side = round(shape[0] ** 0.5)
        shape = (1, side, side)
    layers: list[nn.Module] = [_Image(tuple(shape))]
    width, side = shape[0], min(shape[1:])
    for following in channels:
        layers.append(nn.Conv2d(width, following, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(following))
        layers.append(nn.ReLU())
        if side >= 2:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        width = following
    return nn.Sequential(*layers, nn.Flatten())


class _Image(nn.Module):
    """View the input as ``[n, channels, height, width]``."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


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
