"""How a pretrained model of images wants their pixels scaled."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.pretrained.folder import EXTRA
from fedjoint.model.pretrained.libraries import library

_FILE = "preprocessor_config.json"


def moments(path: str) -> tuple[Tensor, Tensor] | None:
    """Return mean and deviation ``[channels]`` of pixels from 0 to 1; None: the model has none.

    Args:
        path: a folder, or a name on the hub, of which the model was loaded.

    Raises:
        UserError: its file is malformed.
    """
    hub = library("transformers.utils", EXTRA)
    file = hub.cached_file(path, _FILE, _raise_exceptions_for_missing_entries=False)
    if file is None:
        return None
    try:
        settings = json.loads(Path(file).read_text("utf-8"))
        if not settings.get("do_normalize", True):
            return None
        mean, deviation = (torch.tensor(settings[k]).float() for k in ("image_mean", "image_std"))
    except ANYTHING as error:
        raise UserError(f"{path}: {_FILE}: {said(error)}") from None
    if mean.shape != deviation.shape or mean.ndim != 1 or not (deviation > 0).all():
        raise UserError(f"{path}: {_FILE}: image_mean and image_std: give a number per channel")
    return mean, deviation


def moments_file(mean: Tensor, deviation: Tensor) -> dict[str, bytes]:
    """Return the file, by name, in which :func:`moments` finds these, ``[channels]`` each."""
    settings = {"do_normalize": True, "image_mean": mean.tolist(), "image_std": deviation.tolist()}
    return {_FILE: json.dumps(settings).encode()}


class Scale(nn.Module):
    """Each channel less its mean, in deviations.

    Args:
        mean: ``[channels]``.
        deviation: ``[channels]``.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("deviation", deviation[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation
