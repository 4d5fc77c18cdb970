"""What of a model does not train: it is the same for every client, so a worker holds it once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedjoint.errors import UserError
from fedjoint.model.tree import Input


def moving_buffers(module: nn.Module, examples: Input) -> set[str]:
    """Return the names of the buffers that a pass in training mode may change.

    These are all buffers of a submodule of which one changes, as BatchNorm's mean of zeros stays
    what it is; and all buffers of a module that does not take the examples.

    Args:
        module: stays as it is.
        examples: ``[n, ...]`` inputs.
    """
    own = {id(parameter): parameter for parameter in module.parameters()}
    trial = copy.deepcopy(module, own)  # a copy of the buffers alone
    trial.train()
    before = {n: (b, b._version, b.clone()) for n, b in trial.named_buffers()}
    try:
        with torch.no_grad():
            trial(examples)
    except Exception:  # whatever a module may raise is said where it is tried
        return set(before)
    after = dict(trial.named_buffers())
    moved = {
        name.rpartition(".")[0]
        for name, (buffer, version, values) in before.items()
        if after.get(name) is not buffer
        or buffer._version != version
        or not torch.equal(buffer.nan_to_num(), values.nan_to_num())
    }
    return {name for name in before if name.rpartition(".")[0] in moved}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of names, types, shapes and numbers of ``tensors``; of none: nothing."""
    if not tensors:
        return ""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def changes_what_is_held(name: str) -> UserError:
    """Return the error for a model that changes what it should not, the tensor ``name``."""
    return UserError(
        f"{name} does not train, so all clients have the same, and the model changes it by itself: "
        "keep it in a buffer that every pass in training mode changes"
    )
