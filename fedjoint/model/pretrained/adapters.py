"""Low-rank adapters (LoRA), by the library peft."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.pretrained.folder import EXTRA
from fedjoint.model.pretrained.libraries import library, quiet
from fedjoint.options import BelowOne, Count, Positive


class Lora(BaseModel):
    """Adapters of low rank beside layers that stay as they are.

    The output of a layer is ``W x + alpha / rank * B A x``, of which A and B train, and B begins at
    zero (Hu et al., LoRA, ICLR 2022, https://arxiv.org/abs/2106.09685).

    Attributes:
        targets: names of the layers, or the ends of their names after a point, as in peft.
        rank: of the adapters.
        alpha: see above; None: twice the rank.
        dropout: of the adapters' inputs, in training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: Annotated[list[str], Field(min_length=1)]
    rank: Count = 8
    alpha: Positive | None = None
    dropout: BelowOne = 0.0


def with_lora(model: nn.Module, lora: Lora) -> nn.Module:
    """Return ``model`` with adapters, and all else of it frozen.

    Raises:
        UserError: a target matches no layer, or one that cannot have an adapter.
    """
    peft = library("peft", EXTRA)
    for target in lora.targets:
        if not any(_matches(name, target) for name, _ in model.named_modules()):
            raise UserError(
                f"lora.targets: {target!r} matches no layer; linear layers there are "
                f"{', '.join(dict.fromkeys(_linear(model)))}"
            )
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha or 2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    try:
        with quiet():
            return peft.get_peft_model(model, config)
    except UserError:  # the model does not fit
        raise
    except ANYTHING as error:  # such as a layer of a kind for which it has no adapter
        raise UserError(f"lora: {said(error)}") from error


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _linear(model: nn.Module) -> Iterator[str]:
    """Yield the last parts of the names of the layers that are a matrix."""
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(module, nn.Embedding) and weight is not None and weight.ndim == 2:
            yield name.rpartition(".")[2]
