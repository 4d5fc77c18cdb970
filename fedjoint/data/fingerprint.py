"""A client's data in a few characters: has it changed?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from fedjoint.data.base import Client
from fedjoint.model.stream import Stream
from fedjoint.model.tree import named


def fingerprint(client: Client, legend: Sequence[str] = ()) -> str:
    """Return 32 hexadecimal digits that stand for a client's data as it is.

    They change with any input or label, with the order of the examples, with the split that an
    example is in, and with types, shapes and names of tasks. They do not depend on the machine,
    the process or the order in which tasks are listed.

    Args:
        client: what a federation returns.
        legend: what its inputs and classes are called.
    """
    digest = hashlib.blake2b(digest_size=16)
    if legend:
        digest.update(repr(list(legend)).encode())
    for split in ("train", "valid", "test"):
        examples = getattr(client, split)
        if isinstance(examples.x, Stream):
            digest.update(_streamed(examples.x))
        else:
            for name, part in sorted(named(examples.x).items()):
                _add(digest, f"{split}.x.{name}" if name else f"{split}.x", part)
        for name in sorted(examples.y):
            _add(digest, f"{split}.y.{name}", examples.y[name])
    return digest.hexdigest()


def _streamed(x: Stream) -> bytes:
    """Return what stands for inputs of which no more than a few are read at once."""
    digest = hashlib.blake2b(str(len(x)).encode())
    for few in x.passes():
        for name, part in sorted(named(few).items()):
            _add(digest, name, part)
    return digest.digest()


def _add(digest: hashlib.blake2b, name: str, tensor: Tensor) -> None:
    # repr, so that no name can pass for a name and a shape.
    digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
