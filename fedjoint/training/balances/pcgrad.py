"""PCGrad within a client's step."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.training.balance import Balance


class PCGrad(Balance):
    """Projecting conflicting gradients: each task's loses its part against any other's.

    The gradient of task i of the backbone, for the other tasks j in the order i + 1, i + 2, ...
    around, loses its part along that of task j where their inner product is negative; the step
    descends the sum of what is left. Between clients or tasks it is the strategy of that name.

    Paper: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
    https://arxiv.org/abs/2001.06782
    """

    omits = "the random order"
    separate = resolves = True

    def resolve(self, gram: Tensor) -> Tensor:
        count = len(self.tasks)
        square = gram.diagonal()
        # Zero where there is no gradient: nothing is projected along it.
        inverse = torch.where(square > 0, 1 / square, 0)
        total = torch.zeros_like(square)
        each = torch.eye(count, dtype=gram.dtype, device=gram.device).unbind()
        for i in range(count):
            row = each[i]
            for j in ((i + k) % count for k in range(1, count)):
                row = row - (row @ gram[:, j]).clamp(max=0) * inverse[j] * each[j]
            total = total + row
        return total
