"""Compressed updates: top-k with error feedback, and 8-bit quantisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.section import Section


class CompressionConfig(Section):
    """What clients send in place of the whole update."""

    name: Literal["none", "topk", "int8"] = "none"
    fraction: float = Field(0.1, gt=0, le=1, description="topk: share of the parameters sent")


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
    sent = decode(payload, wanted.shape[1])
    return payload, sent, wanted - sent


def decode(payload: Mapping[str, Tensor], size: int) -> Tensor:
    """Return the ``[clients, P]`` updates behind a payload.

    Args:
        payload: ``index`` ``[clients, k]`` int32 and ``values`` ``[clients, k]`` float32, or
            ``levels`` ``[clients, P]`` int8 and ``scale`` ``[clients, 1]`` float32.
        size: P.

    Raises:
        UserError: it is neither, or an index is out of range.
    """
    if payload.keys() == {"index", "values"}:
        index, values = payload["index"].long(), payload["values"]
        if index.shape != values.shape or values.dtype != torch.float32:
            raise UserError("compressed update: index and values do not fit each other")
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise UserError(f"compressed update: an index is not below {size}")
        return values.new_zeros(len(values), size).scatter_(1, index, values)
    if payload.keys() == {"levels", "scale"}:
        levels, scale = payload["levels"], payload["scale"]
        if levels.dtype != torch.int8 or levels.shape != (len(scale), size) or scale.ndim != 2:
            raise UserError("compressed update: levels and scale do not fit each other")
        return levels.float() * scale.float()
    raise UserError(f"compressed update: unknown parts {sorted(payload)}")
