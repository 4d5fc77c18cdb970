"""A model of images of the library timm, whole or with adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from fedjoint.errors import UserError
from fedjoint.model.inputs import Description, one_tensor
from fedjoint.model.pretrained.adapters import Lora
from fedjoint.model.pretrained.choose import trained_in_part
from fedjoint.model.pretrained.timm_models import TimmEncoder, load_timm, moments


def timm(
    inputs: Description,
    name: str,
    path: str | None = None,
    lora: Lora | None = None,
    train: Sequence[str] | None = None,
    settings: dict[str, Any] | None = None,
) -> nn.Module:
    """A model of images of the library timm, with LoRA adapters or without.

    Args:
        inputs: what is read: images.
        name: of the architecture, as in timm.list_models().
        path: a safetensors file of its weights, or a folder with model.safetensors; default: drawn
            by the run's seed.
        lora: adapters, which alone train then: targets (names of layers), rank, alpha, dropout.
        train: patterns of the names of what trains; default: the adapters, or else everything.
        settings: more of timm.create_model, such as img_size.

    Raises:
        UserError: it cannot be built, its weights are of another model, or inputs are no images.
    """
    read = one_tensor(inputs)
    if len(read.shape) != 3 or read.dtype != "float32":
        raise UserError(f"{name} reads images, and inputs are {read.shape} {read.dtype}")
    model = load_timm(name, path, read.shape[0], settings or {})
    scale = moments(model, read.shape[0]) if path and read.pixels else None
    return TimmEncoder(trained_in_part(name, model, lora, train), scale)
