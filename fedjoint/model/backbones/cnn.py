"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fedjoint.model.backbones._widths import Widths
from fedjoint.model.inputs import Description, one_tensor


def cnn(
    inputs: Description,
    hidden: Widths = (128, 64),
    batch_norm: bool = False,
    flatten: bool = True,
) -> nn.Module:
    """3x3 convolutions with ReLU and 2x2 pooling, then flattened.

    Args:
        inputs: what is read, ``(channels, height, width)``; ``(height * width,)`` is taken as one
            square channel.
        hidden: output channels of each convolution.
        batch_norm: put BatchNorm after each convolution.
        flatten: if not, the features are a map ``[n, hidden[-1], height, width]``, as tasks of
            places need it.
    """
    shape: Sequence[int] = one_tensor(inputs).shape
    if len(shape) == 1:
        side = round(shape[0] ** 0.5)
        shape = (1, side, side)
    layers: list[nn.Module] = [_Image(tuple(shape))]
    width, side = shape[0], min(shape[1:])
    for following in hidden:
        layers.append(nn.Conv2d(width, following, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(following))
        layers.append(nn.ReLU())
        if side >= 2:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        width = following
    return nn.Sequential(*layers, nn.Flatten()) if flatten else nn.Sequential(*layers)


class _Image(nn.Module):
    """View the input as ``[n, channels, height, width]``."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)
