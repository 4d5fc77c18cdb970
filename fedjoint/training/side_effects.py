"""What a model does beside computing, found by running it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint.errors import UserError
from fedjoint.model.joint import JointModel, copied
from fedjoint.model.tree import Input, first
from fedjoint.randomness import seeded, states_elsewhere


def side_effects(model: JointModel, examples: Input) -> str | None:
    """Say what about a model keeps clients from being trained as one program; None: nothing.

    The model is copied first, so it stays as it is; but for frozen parameters, which may be most of
    its memory. Whoever changes these is told elsewhere.

    Args:
        model: to run, on the device of ``examples``.
        examples: ``[n, ...]`` inputs.

    Raises:
        UserError: the model remembers something where no client can keep it for itself.
    """
    model = copied(model, "the model", [p for p in model.parameters() if not p.requires_grad])
    elsewhere = states_elsewhere()
    try:
        for mode in (True, False):
            model.train(mode)
            _run(model, examples)  # what it keeps from the first pass on, such as a mask, settles
            before = _memory(model)
            buffers = dict(model.named_buffers())
            _run(model, examples)
            _check(model, before, buffers)
    except UserError:
        raise
    except Exception:  # what a model raises is said where it is tried
        return None
    drawn = _differs(states_elsewhere(), elsewhere)
    return "the model draws from Python's or NumPy's own random numbers" if drawn else None


def _run(model: JointModel, examples: Input) -> None:
    with torch.no_grad(), seeded(first(examples).device, 0):
        model(examples, list(model.heads))


def _memory(model: nn.Module) -> dict[str, Any]:
    """Return the values of the modules' plain attributes, copied, by name."""
    return {name: copy.deepcopy(value) for name, value in _attributes(model)}


def _attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for place, module in model.named_modules():
        for name, value in vars(module).items():
            plain = isinstance(value, (int, float, complex, str, Tensor, np.ndarray, list, dict))
            if name != "training" and not name.startswith("_") and plain:
                yield f"{place}.{name}".lstrip("."), value


def _check(model: nn.Module, before: dict[str, Any], buffers: dict[str, Tensor]) -> None:
    for name, value in _attributes(model):
        if name not in before or _differs(value, before[name]):
            raise UserError(
                f"{name} changes in every pass of the model, and all clients would share it: make "
                "it a buffer (register_buffer) that forward changes in place"
            )
    for name, buffer in model.named_buffers():
        if buffers.get(name) is not buffer:
            raise UserError(
                f"{name} is assigned anew in forward, and no client could keep its own: change it "
                "in place, as self.count.add_(1) does"
            )


def _differs(value: Any, other: Any) -> bool:
    if isinstance(value, (Tensor, np.ndarray)):
        a, b = torch.as_tensor(value), torch.as_tensor(other)
        return a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() != other.keys() or any(_differs(v, other[k]) for k, v in value.items())
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        pairs = zip(value, other, strict=False)
        return len(value) != len(other) or any(_differs(a, b) for a, b in pairs)
    plain = isinstance(value, (int, float, complex, str))
    return plain and bool(value != other)  # what cannot be compared is left to the user
