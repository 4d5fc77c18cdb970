"""The folder of an export that holds what a pretrained backbone and a tokenizer are built of."""

from __future__ import annotations

from torch import nn

from fedjoint.errors import UserError
from fedjoint.exports.ensemble import EnsembleModel
from fedjoint.exports.model import PRETRAINED, Card
from fedjoint.model.inputs import tokenizer_of
from fedjoint.model.pretrained.portable import Portable
from fedjoint.model.pretrained.tokenizer import tokenizer_files

#: What :func:`of_its_library` may write.
WEIGHTS = [
    f"{PRETRAINED}/{name}"
    for name in ("model.safetensors", "adapter_model.safetensors", "adapter_config.json")
]


def bundled(model: nn.Module, card: Card) -> tuple[Card, dict[str, bytes]]:
    """Return the card of an export that needs nothing of the machine it was made on, and its files.

    Args:
        model: the exported one, or an ensemble of such.
        card: says of which paths backbone and tokenizer are.

    Raises:
        UserError: the tokenizer is gone.
    """
    files: dict[str, bytes] = {}
    tokenizer, options = tokenizer_of(card.inputs), card.options
    if tokenizer:
        files |= tokenizer_files(tokenizer)
    backbone = next((m for m in model.modules() if isinstance(m, Portable)), None)
    if backbone is not None and card.rebuilt:
        files |= backbone.structure()
        options = backbone.without_weights(options, PRETRAINED)
    return card.with_paths(PRETRAINED if tokenizer else None, options), _inside(files)


def of_its_library(model: nn.Module) -> dict[str, bytes]:
    """Return the files of which the library of the model's backbone loads that.

    Raises:
        UserError: it is of no such library, or there are several.
    """
    if isinstance(model, EnsembleModel):
        raise UserError("--format hf is for one model, not for an ensemble: give one client's")
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Portable):
        raise UserError("--format hf is for backbones hf and timm: use --format safetensors")
    return _inside(backbone.weights())


def _inside(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{PRETRAINED}/{name}": data for name, data in files.items()}
