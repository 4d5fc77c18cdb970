"""A pretrained model of the library transformers, whole or with adapters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import nn

from fedjoint.errors import UserError
from fedjoint.model.inputs import Description, Inputs
from fedjoint.model.pretrained.adapters import Lora
from fedjoint.model.pretrained.choose import trained_in_part
from fedjoint.model.pretrained.encoder import ImageEncoder, Pooling, TextEncoder
from fedjoint.model.pretrained.folder import load_pretrained
from fedjoint.model.pretrained.images import moments


def hf(
    inputs: Description,
    path: str,
    lora: Lora | None = None,
    train: Sequence[str] | None = None,
    pooling: Pooling = "mean",
    weights: bool = True,
) -> nn.Module:
    """A pretrained encoder or decoder of Hugging Face transformers, with LoRA adapters or without.

    Args:
        inputs: what is read: token ids of ``data.source.options.tokenizer``, or images.
        path: a folder with config.json and safetensors weights, or a name on the hub.
        lora: adapters, which alone train then: targets (names of layers), rank, alpha, dropout.
        train: patterns of the names of what trains; default: the adapters, or else everything.
        pooling: features are the mean of the vectors of a sequence, the first (cls), the last, or
            all of them (none).
        weights: false draws them by the run's seed, and needs config.json alone.

    Raises:
        UserError: it cannot be loaded, does not read such inputs, or nothing is left to train.
    """
    model = load_pretrained(path, weights=weights)
    kind = str(getattr(model, "main_input_name", "input_ids"))
    read = _main_input(path, inputs, model, kind)
    body = trained_in_part(path, model, lora, train)
    if kind == "pixel_values":
        return ImageEncoder(body, pooling, moments(path) if read.pixels else None)
    pad = read.words.pad if read.words else read.pad
    if pad is None:
        pad = getattr(model.config, "pad_token_id", None)
    return TextEncoder(body, -1 if pad is None else int(pad), pooling, read.shape[0])


def _main_input(path: str, inputs: Description, model: nn.Module, kind: str) -> Inputs:
    """Return the images or token ids among the inputs, once they fit the model.

    Args:
        path: of the model.
        inputs: what is read.
        model: the model.
        kind: what the model calls them.

    Raises:
        UserError: they do not fit, or another part of an input is nothing that the model takes.
    """
    parts = inputs if isinstance(inputs, dict) else {kind: inputs}
    if kind not in parts or kind not in ("input_ids", "pixel_values"):
        raise UserError(f"{path} reads {kind!r}, and an input is a dict of {', '.join(parts)}")
    taken = set(inspect.signature(model.forward).parameters)
    for name in parts:
        if name not in taken:
            raise UserError(f"{path} takes no {name!r} beside {kind!r}: leave it out of inputs")
    read = parts[kind]
    if kind == "input_ids":
        _check_words(path, read, model)
    elif read.dtype != "float32":
        raise UserError(f"{path} reads images, and inputs are {read.shape} {read.dtype}")
    return read


def _check_words(path: str, inputs: Inputs, model: nn.Module) -> None:
    if inputs.dtype != "int64" or len(inputs.shape) != 1:
        raise UserError(
            f"{path} reads token ids [n, length] int64, and inputs are {inputs.shape} "
            f"{inputs.dtype}; set model.backbone"
        )
    words = inputs.words
    if words and words.tokenizer is None:
        raise UserError(
            f"{path} reads ids of its own tokenizer, and inputs are hashed words: set "
            f"data.source.options.tokenizer = {path!r}"
        )
    known = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
    if words and words.vocabulary > known:
        raise UserError(
            f"the tokenizer {words.tokenizer} has {words.vocabulary} tokens, and {path} knows "
            f"{known}: set data.source.options.tokenizer = {path!r}"
        )
    most = getattr(model.config, "max_position_embeddings", None)
    if isinstance(most, int) and inputs.shape[0] > most:
        raise UserError(
            f"inputs are {inputs.shape[0]} tokens long, and {path} takes {most}: lower "
            "data.source.options.max_length"
        )
