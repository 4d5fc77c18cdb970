"""What of a pretrained backbone goes into files, for fedjoint and for the library that it is of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from torch import nn

from fedjoint.model.pretrained.libraries import quiet


class Portable(nn.Module):
    """A backbone that is written into files from which it can be built elsewhere.

    Where a part of it trains, the layers in which nothing does stay in evaluation mode: they drop
    nothing, and normalise by what they know. Beside adapters, all layers train or not as one.
    """

    body: nn.Module

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not hasattr(self.body, "peft_config"):
            for layer in _frozen(self.body):
                layer.eval()
        return self

    def structure(self) -> dict[str, bytes]:
        """Return the files, by name, from which it is built without its weights."""
        raise NotImplementedError

    def without_weights(self, options: Mapping[str, Any], folder: str) -> dict[str, Any]:
        """Return the options that build it of :meth:`structure` in ``folder``.

        Args:
            options: those that built this one.
            folder: where the files are.
        """
        raise NotImplementedError

    def weights(self) -> dict[str, bytes]:
        """Return the files from which its own library loads it, or its adapters."""
        raise NotImplementedError


class OfTransformers(Portable):
    """A backbone around a model of the library transformers, or of peft around one.

    Args:
        body: the model.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def structure(self) -> dict[str, bytes]:
        config = self.body.config.to_diff_dict()  # type: ignore[union-attr,operator]
        return {"config.json": json.dumps(config, indent=2, sort_keys=True).encode()}

    def without_weights(self, options: Mapping[str, Any], folder: str) -> dict[str, Any]:
        return {**options, "path": folder, "weights": False}

    def weights(self) -> dict[str, bytes]:
        if hasattr(self.body, "peft_config"):
            return adapter_files(self.body)
        return _saved(self.body, max_shard_size="1000GB")


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules that have parameters of which none trains."""
    train = [parameter.requires_grad for parameter in module.parameters()]
    if train and not any(train):
        yield module
    elif train:
        for child in module.children():
            yield from _frozen(child)


def adapter_files(model: nn.Module) -> dict[str, bytes]:
    """Return the files from which peft loads the adapters of ``model``."""
    return _saved(model, save_embedding_layers=False)


def _saved(model: nn.Module, **how: Any) -> dict[str, bytes]:
    with TemporaryDirectory() as folder, quiet():
        model.save_pretrained(folder, **how)  # type: ignore[operator]
        files = [file for file in Path(folder).iterdir() if file.name != "README.md"]
        return {file.name: file.read_bytes() for file in files}
