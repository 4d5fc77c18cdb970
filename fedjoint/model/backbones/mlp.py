"""A multi-layer perceptron."""

from __future__ import annotations

import itertools

from torch import nn

from fedjoint.model.backbones._widths import Widths
from fedjoint.model.inputs import Description, one_tensor


def mlp(inputs: Description, hidden: Widths = (128, 64)) -> nn.Module:
    """ReLU layers ``[n, ...] -> [n, hidden[-1]]``; inputs of several dimensions are flattened.

    Args:
        inputs: what is read.
        hidden: layer widths.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in itertools.pairwise([one_tensor(inputs).size, *hidden]):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers)
