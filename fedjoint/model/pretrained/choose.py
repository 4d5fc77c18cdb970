"""What trains of a pretrained model."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from fedjoint.errors import UserError
from fedjoint.model.pretrained.adapters import Lora, with_lora


def trained_in_part(
    path: str, model: nn.Module, lora: Lora | None, train: Sequence[str] | None
) -> nn.Module:
    """Return ``model`` with adapters, or with what no pattern matches frozen.

    The pooler is frozen in any case: no feature depends on it.

    Args:
        path: where the model comes from.
        model: is changed in place.
        lora: adapters, beside which all is frozen.
        train: patterns of the names of what trains; None: everything.

    Raises:
        UserError: both are given, or a pattern or an adapter matches nothing.
    """
    if lora:
        if train is not None:
            raise UserError("with lora, the adapters alone train: leave out train, or lora")
        return with_lora(model, lora)
    patterns = ["*"] if train is None else train
    if not patterns:
        raise UserError("train is empty: give patterns of the names of what trains")
    names = [n for n, _ in model.named_parameters() if not n.startswith("pooler.")]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"train: {pattern!r} matches no parameter of {path}; there are "
                f"{', '.join(names[:3])} and {len(names) - 3} more"
            )
    for name, parameter in model.named_parameters():
        chosen = name in names and any(fnmatchcase(name, pattern) for pattern in patterns)
        parameter.requires_grad_(chosen)
    return model
