"""Plain and momentum SGD of one client, every step replayed from a trace.

The trace has PyTorch's own operations of one model, and nothing of autograd's and the modules' work
between them. ``vmap`` of one client would have others, which take longer for some models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from fedjoint.config.schema import OptimiserConfig
from fedjoint.model.tree import alone, each
from fedjoint.training.alone import Alone, laid_out
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
        last: takes steps with the channels of images last, which makes the CPU's convolutions
            faster. So does the trace, then; but where it would have to take operations apart that
            change tensors in place, as pooling does there, ``last`` takes the steps. None: the
            channels stay where they are.
    """

    def __init__(
        self, program: Callable[..., Any], rule: OptimiserConfig, last: Alone | None = None
    ) -> None:
        super().__init__(program, rule)
        self._last = last

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
        own = {name: self._laid_out(p[0].clone()) for name, p in parameters.items()}
        rest, weight = alone(frozen), weights[0]
        buffers = [torch.zeros_like(p) for p in own.values() if self._rule.momentum]
        total, counted = torch.zeros_like(weights), torch.zeros_like(weights)
        for number, few in enumerate(batches):
            _, x, y, labelled = few
            inputs = own, rest, each(lambda part: self._laid_out(part[0]), x), alone(y), weight
            tensors = flat(inputs)
            step = self._step(inputs, tensors)
            if step is None:
                if number or self._last is None:
                    return None
                with torch.enable_grad():
                    again = chain([few], batches)
                    return self._last.run(parameters, frozen, again, weights, rate)
            (losses,) = step(*tensors, rate, *buffers)
            total += losses if labelled is None else torch.where(labelled, losses, 0)
            counted += 1 if labelled is None else labelled
        for name, parameter in parameters.items():
            parameter[0] = own[name]
        return total, counted

    def _laid_out(self, tensor: Tensor) -> Tensor:
        return laid_out(tensor, self._last is not None)

    def _noted(self, inputs: Any, tensors: list[Tensor]) -> tuple[Graphed, list[Tensor]]:
        graph = notes_of_one(self._program, inputs, tensors, apart=self._last is None)
        return graph, [tensor.clone() for tensor in tensors]
