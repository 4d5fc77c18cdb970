"""Backbones of the larger workloads: what federated learning is usually measured on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def femnist_cnn() -> nn.Module:
    """``[n, 1, 28, 28]`` to ``[n, 512]``, 1.7 million parameters.

    Paper: the CNN of McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(7 * 7 * 64, 512), nn.ReLU(),
    )  # fmt: skip


def cifar_cnn() -> nn.Module:
    """``[n, 3, 32, 32]`` to ``[n, 128]``, 1.6 million parameters, without its dropout.

    Paper: the CNN of Granqvist et al., NeurIPS 2024, https://arxiv.org/abs/2404.06430
    """
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(14 * 14 * 64, 128), nn.ReLU(),
    )  # fmt: skip


def resnet8() -> nn.Module:
    """``[n, 3, 32, 32]`` to ``[n, 64]``: three blocks of 16, 32 and 64 channels, GroupNorm."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.GroupNorm(2, 16), nn.ReLU(),
        _Block(16, 16, 1), _Block(16, 32, 2), _Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def frozen_resnet8() -> nn.Module:
    """``[n, 3, 32, 32]`` to ``[n, 64]``, ``resnet8`` that does not train and a layer that does."""
    return nn.Sequential(resnet8().requires_grad_(False), nn.Linear(64, 64), nn.ReLU())


def resnet18() -> nn.Module:
    """``[n, 3, 32, 32]`` to ``[n, 512]``: four pairs of blocks, GroupNorm, 11 million parameters.

    Paper: He et al., CVPR 2016, https://arxiv.org/abs/1512.03385, with a first layer for small
    images
    """
    widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [(_Block(i, o, stride), _Block(o, o, 1)) for i, o, stride in widths]
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.GroupNorm(2, 64), nn.ReLU(),
        *(block for pair in blocks for block in pair), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class _Block(nn.Module):
    """Two convolutions beside a shortcut, as in ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(2, outputs) for _ in range(2)])
        alike = inputs == outputs
        self.shortcut = nn.Identity() if alike else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.shortcut(x))


class Recurrent(nn.Module):
    """``[n, tokens]`` int64 to ``[n, 128]``: an LSTM's state after the last of the words.

    Args:
        vocabulary: number of words.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, 64)
        self.recurrent = nn.LSTM(64, 128, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(self.words(x))[0][:, -1]


class Transformer(nn.Module):
    """``[n, tokens]`` int64 to ``[n, 128]``: two layers of width 128, the mean over the tokens.

    Args:
        vocabulary: number of words.
        tokens: in an example.
    """

    def __init__(self, vocabulary: int, tokens: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, 128)
        self.places = nn.Parameter(0.02 * torch.randn(tokens, 128))
        layer = nn.TransformerEncoderLayer(128, 4, 512, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.words(x) + self.places).mean(1)
