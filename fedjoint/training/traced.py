"""Plain and momentum SGD of one client, every step replayed from a trace.

The trace has PyTorch's own operations of one model, and nothing of autograd's and the modules' work
between them. ``vmap`` of one client would have others, which take longer for some models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fedjoint.model.tree import alone
from fedjoint.training.notes import Graphed
from fedjoint.training.replay import flat, notes_of_one
from fedjoint.training.stepper import Few, Stepper, Tensors


class Traced(Stepper):
    """Takes the steps of one client.

    Args:
        program: (trained, frozen, x, y, task weights) of one client -> gradients of what is
            trained, and ``[tasks]`` losses; it draws no random numbers, and treats every example of
            a minibatch for itself.
        rule: SGD.
    """

    @torch.no_grad()
    def run(
        self,
        parameters: Tensors,
        frozen: Tensors,
        batches: Iterator[Few],
        weights: Tensor,
        rate: float,
    ) -> tuple[Tensor, Tensor] | None:
        """Take a step with every minibatch; see :meth:`fedjoint.training.descent.Descent.run`."""
        buffers = [torch.zeros_like(p[0]) for p in parameters.values() if self._rule.momentum]
        total, counted = torch.zeros_like(weights), torch.zeros_like(weights)
        for _, x, y, labelled in batches:
            inputs = parameters, frozen, x, y, weights
            tensors = flat(inputs)
            step = self._step(inputs, tensors)
            if step is None:
                return None
            (losses,) = step(*(tensor[0] for tensor in tensors), rate, *buffers)
            total += losses if labelled is None else torch.where(labelled, losses, 0)
            counted += 1 if labelled is None else labelled
        return total, counted

    def _noted(self, inputs: Any, tensors: list[Tensor]) -> tuple[Graphed, list[Tensor]]:
        own = [tensor[0] for tensor in tensors]
        graph = notes_of_one(self._program, tuple(map(alone, inputs)), own)
        return graph, [tensor.clone() for tensor in own]
