"""Models of the library timm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.pretrained.folder import WEIGHTS
from fedjoint.model.pretrained.images import Scale
from fedjoint.model.pretrained.libraries import library, quiet
from fedjoint.model.pretrained.portable import Portable, adapter_files


class TimmEncoder(Portable):
    """Images ``[n, channels, height, width]`` to features ``[n, width]``.

    Args:
        body: the model, without a classifier.
        moments: mean and deviation of each channel, by which images are scaled; None: they are.
    """

    def __init__(self, body: nn.Module, moments: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.body = body
        self.scale = Scale(*moments) if moments else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(self.scale(x))
        return features

    def structure(self) -> dict[str, bytes]:
        return {}

    def without_weights(self, options: Mapping[str, Any], folder: str) -> dict[str, Any]:
        return dict(options)

    def weights(self) -> dict[str, bytes]:
        if hasattr(self.body, "peft_config"):
            return adapter_files(self.body)
        tensors = {name: t.contiguous() for name, t in self.body.state_dict().items()}
        return {WEIGHTS: safetensors.torch.save(tensors)}


def load_timm(name: str, path: str | None, channels: int, settings: Mapping[str, Any]) -> nn.Module:
    """Return the model ``name`` without a classifier.

    Args:
        name: of the architecture.
        path: of its weights, safetensors; None: PyTorch's generator draws them.
        channels: of the images.
        settings: more of ``timm.create_model``.

    Raises:
        UserError: there is no such architecture, or the weights are of another model.
    """
    made = library("timm", "vision")
    fixed = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    for key in settings:
        if key in (*fixed, "checkpoint_path"):
            raise UserError(f"settings.{key} is not yours to set: leave it out")
    try:
        with quiet():
            model: nn.Module = made.create_model(name, **fixed, **settings)
    except ANYTHING as error:  # whatever the library may raise
        raise UserError(f"{name}: {said(error)}") from error
    if path is not None:
        _load(model, Path(path))
    return model


def moments(model: nn.Module, channels: int) -> tuple[Tensor, Tensor] | None:
    """Return mean and deviation ``[channels]`` of pixels from 0 to 1.

    None: the model has none, or for colours, and was trained by its owner on other channels.
    """
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    mean, deviation = (torch.tensor(config.get(key) or ()) for key in ("mean", "std"))
    return (mean, deviation) if len(mean) == len(deviation) == channels else None


def _load(model: nn.Module, path: Path) -> None:
    path = path / WEIGHTS if path.is_dir() else path
    try:
        found = safetensors.torch.load_file(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a safetensors file") from None
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error})") from None
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    own = {n: t for n, t in found.items() if not n.startswith(tuple(f"{h}." for h in heads))}
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ own.keys()):
        where = "not in it" if name in wanted else "not in the model"
        raise UserError(f"{path}: {name} is {where}: give weights of this architecture")
    for name, tensor in wanted.items():
        if own[name].shape != tensor.shape:
            raise UserError(
                f"{path}: {name} is {tuple(own[name].shape)}, and {tuple(tensor.shape)} in the "
                "model: give weights of this architecture, for images of as many channels"
            )
    model.load_state_dict(own)
    model.float()
