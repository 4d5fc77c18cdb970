"""Named tensors as bytes that say whether they are whole: safetensors with a checksum."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor


class DamagedError(ValueError):
    """The bytes are not what :func:`pack` made."""


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return safetensors bytes of ``tensors``, from any device.

    Args:
        tensors: name -> tensor.
        metadata: text to go with them; ``crc32`` is added.
    """
    # Cloned, as safetensors refuses tensors that share memory, which rows of one stack do.
    own = {
        n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()
    }
    about = dict(metadata or {})
    return safetensors.torch.save(own, {**about, "crc32": str(_checksum(own, about))})


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the metadata that :func:`pack` was given.

    Raises:
        DamagedError: bytes are missing or changed.
    """
    try:
        tensors = safetensors.torch.load(data)
        (length,) = struct.unpack_from("<Q", data)
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, struct.error, ValueError, KeyError) as error:
        raise DamagedError(f"not safetensors: {error}") from None
    if metadata.pop("crc32", None) != str(_checksum(tensors, metadata)):
        raise DamagedError("the checksum is wrong")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    checksum = zlib.crc32(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        checksum = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), checksum)
        # As bytes, for numpy does not know bfloat16.
        content = tensor.reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(content.data, checksum)
    return checksum
