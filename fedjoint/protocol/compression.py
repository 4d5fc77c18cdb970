"""Compressed updates: top-k with error feedback, and 8-bit quantisation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedjoint.config.schema import CompressionConfig
from fedjoint.errors import UserError


def compress(
    update: Tensor, residual: Tensor, config: CompressionConfig
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Compress updates, feeding back what earlier rounds left out.

    Papers: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018,
    https://arxiv.org/abs/1809.07599; Karimireddy et al., "Error Feedback Fixes SignSGD", ICML
    2019, https://arxiv.org/abs/1901.09847

    Args:
        update: ``[clients, P]``.
        residual: ``[clients, P]`` what was not sent so far.
        config: how to compress.

    Returns:
        The payload to send (see :func:`decode`), the ``[clients, P]`` update that it stands
        for, and the new residual; sent plus residual is the update plus the old residual.
    """
    wanted = update + residual
    if config.name == "topk":
        count = max(1, math.ceil(config.fraction * wanted.shape[1]))
        index = wanted.abs().topk(count, dim=1).indices
        payload = {"index": index.to(torch.int32), "values": wanted.gather(1, index)}
    else:
        scale = wanted.abs().amax(1, keepdim=True) / 127
        levels = wanted / torch.where(scale > 0, scale, torch.ones_like(scale))
        payload = {"levels": levels.round().clamp(-127, 127).to(torch.int8), "scale": scale}
    sent = _expand(payload, wanted.shape[1])
    return payload, sent, wanted - sent


def expect(payload: Mapping[str, Tensor], rows: int, size: int, config: CompressionConfig) -> None:
    """Check that a payload is of the configured kind and shape, before anything is made of it.

    Args:
        payload: see :func:`decode`.
        rows: clients.
        size: P.
        config: how it was to be compressed.

    Raises:
        UserError: it is not.
    """
    if config.name == "topk":
        kept = (rows, max(1, math.ceil(config.fraction * size)))
        shapes = {"index": kept, "values": kept}
    else:
        shapes = {"levels": (rows, size), "scale": (rows, 1)}
    for name, shape in shapes.items():
        found = tuple(payload[name].shape) if name in payload else "no array"
        if found != shape:
            raise _damaged(f"{name} is {found}, expected {shape}")


def decode(payload: Mapping[str, Tensor], size: int) -> Tensor:
    """Return the ``[clients, P]`` updates behind a payload.

    Args:
        payload: ``index`` ``[clients, k]`` int32 and ``values`` ``[clients, k]`` float32, or
            ``levels`` ``[clients, P]`` int8 and ``scale`` ``[clients, 1]`` float32.
        size: P.

    Raises:
        UserError: it is neither, an index is out of range, or a number is not finite.
    """
    if payload.keys() == {"index", "values"}:
        index, values = payload["index"], payload["values"]
        if index.ndim != 2 or index.shape != values.shape:
            raise _damaged(f"index {list(index.shape)} and values {list(values.shape)}")
        if index.dtype != torch.int32 or values.dtype != torch.float32:
            raise _damaged(f"index of {index.dtype} and values of {values.dtype}")
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise _damaged(f"an index is not in 0..{size - 1}")
    elif payload.keys() == {"levels", "scale"}:
        levels, scale = payload["levels"], payload["scale"]
        if levels.shape != (len(levels), size) or scale.shape != (len(levels), 1):
            raise _damaged(f"levels {list(levels.shape)} and scale {list(scale.shape)}")
        if levels.dtype != torch.int8 or scale.dtype != torch.float32:
            raise _damaged(f"levels of {levels.dtype} and scale of {scale.dtype}")
    else:
        raise _damaged(f"unknown parts {sorted(payload)}")
    found = _expand(payload, size)
    if not found.isfinite().all():
        raise _damaged("a number is not finite")
    return found


def _expand(payload: Mapping[str, Tensor], size: int) -> Tensor:
    if "levels" in payload:
        return payload["levels"].float() * payload["scale"]
    values = payload["values"]
    return values.new_zeros(len(values), size).scatter_(1, payload["index"].long(), values)


def _damaged(what: str) -> UserError:
    return UserError(f"compressed update: {what}; run one version of fedjoint on every machine")
