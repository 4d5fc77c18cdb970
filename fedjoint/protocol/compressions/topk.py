"""Top-k: the largest entries alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.options import Share
from fedjoint.protocol.compression import Compression, Payload


class TopK(Compression):
    """The largest entries of every update, with their places.

    Args:
        fraction: share of the parameters sent.

    Paper: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018,
    https://arxiv.org/abs/1809.07599
    """

    def __init__(self, fraction: Share = 0.1) -> None:
        self.fraction = fraction

    def compress(self, wanted: Tensor) -> Payload:
        index = wanted.abs().topk(self._kept(wanted.shape[1]), dim=1).indices
        return {"index": index.to(torch.int32), "values": wanted.gather(1, index)}

    def expected(self, rows: int, size: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        shape = rows, self._kept(size)
        return {"index": (shape, torch.int32), "values": (shape, torch.float32)}

    def expand(self, payload: Mapping[str, Tensor], size: int) -> Tensor:
        index, values = payload["index"], payload["values"]
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise UserError(f"an index is not in 0..{size - 1}")
        return values.new_zeros(len(values), size).scatter_(1, index.long(), values)

    def _kept(self, size: int) -> int:
        return max(1, math.ceil(self.fraction * size))
