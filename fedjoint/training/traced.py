"""Plain and momentum SGD of one client, every step replayed from a trace.

The trace has PyTorch's own operations of one model, and nothing of autograd's and the modules' work
between them. ``vmap`` of one client would have others, which take longer for some models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from fedjoint.config.schema import OptimiserConfig
from fedjoint.model.tree import alone
from fedjoint.training.descent import Few
from fedjoint.training.fused import descending
from fedjoint.training.quick import quicken
from fedjoint.training.replay import flat, notes_of_one, shapes

log = logging.getLogger("fedjoint.training")

Tensors = dict[str, Tensor]


class Traced:
    """Takes the steps of one client.

    Args:
        program: (trained, frozen, x, y, task weights) of one client -> gradients of what is
            trained, and ``[tasks]`` losses; it draws no random numbers, and treats every example of
            a minibatch for itself.
        rule: SGD.
    """

    def __init__(self, program: Callable[..., Any], rule: OptimiserConfig) -> None:
        self._program, self._rule = program, rule
        self._traced: dict[Hashable, fx.GraphModule | None] = {}

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

    def _step(self, inputs: Any, tensors: list[Tensor]) -> fx.GraphModule | None:
        key = shapes(inputs, tensors)
        if key not in self._traced:
            self._traced[key] = self._trace(inputs)
        return self._traced[key]

    def _trace(self, inputs: Any) -> fx.GraphModule | None:
        rule, trained = self._rule, len(inputs[0])
        own = tuple(alone(part) for part in inputs)
        try:
            graph = notes_of_one(self._program, own, flat(own))
            step = descending(graph, trained, rule.momentum, rule.weight_decay)
            tried = [tensor.clone() for tensor in flat(own)]
            buffers = [torch.zeros_like(p) for p in tried[:trained]] if rule.momentum else []
            return quicken(step, [*tried, rule.lr, *buffers])
        except Exception as error:  # whatever a model may do that cannot be written down
            log.info("a step of one client is not traced: %s", error)
            return None
