"""Int8: 8-bit quantisation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedjoint.protocol.compression import Compression, Payload


class Int8(Compression):
    """Every entry rounded to one of 255 levels, evenly up to the largest of its update.

    Paper: Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression
    Schemes", ICML 2019, https://arxiv.org/abs/1901.09847
    """

    def compress(self, wanted: Tensor) -> Payload:
        scale = wanted.abs().amax(1, keepdim=True) / 127
        levels = wanted / torch.where(scale > 0, scale, torch.ones_like(scale))
        return {"levels": levels.round().clamp(-127, 127).to(torch.int8), "scale": scale}

    def expected(self, rows: int, size: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        return {"levels": ((rows, size), torch.int8), "scale": ((rows, 1), torch.float32)}

    def expand(self, payload: Mapping[str, Tensor], size: int) -> Tensor:
        return payload["levels"].float() * payload["scale"]
