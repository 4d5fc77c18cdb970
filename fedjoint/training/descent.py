"""Plain and momentum SGD of many clients, every step one replayed program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fedjoint.config.schema import OptimiserConfig
from fedjoint.training.generic import few
from fedjoint.training.graphs import Graphs
from fedjoint.training.notes import Graphed
from fedjoint.training.replay import flat, notes
from fedjoint.training.stepper import Few, Stepper, Tensors


class Descent(Stepper):
    """Takes steps that change the weights in place.

    Args:
        program: (trained, frozen, x, y, task weights), stacked over clients -> gradients of what is
            trained, and ``[clients, tasks]`` losses; it draws no random numbers.
        rule: SGD.
    """

    def __init__(self, program: Callable[..., Any], rule: OptimiserConfig) -> None:
        super().__init__(program, rule)
        self._graphs = Graphs()

    @torch.no_grad()
    def run(
        self,
        parameters: Tensors,
        frozen: Tensors,
        batches: Iterator[Few],
        weights: Tensor,
        rate: float,
    ) -> tuple[Tensor, Tensor] | None:
        """Take a step with every minibatch.

        Args:
            parameters: ``[clients, ...]``, contiguous; changed in place.
            frozen: the rest of the model.
            batches: the minibatches, of ever fewer clients.
            weights: ``[clients, tasks]`` of the tasks.
            rate: the learning rate.

        Returns:
            ``[clients, tasks]`` sums of the losses over the steps with a label of the task, and the
            number of these; None where the program cannot be traced.
        """
        buffers = [torch.zeros_like(p) for p in parameters.values() if self._rule.momentum]
        total = torch.zeros(weights.shape, device=weights.device)
        counted = torch.zeros_like(total)
        step, shaped, taking = None, None, len(weights)
        for clients, x, y, labelled in batches:
            if clients < taking:
                taking = clients
                parameters, frozen = _first(clients, parameters), _first(clients, frozen)
                weights, buffers = weights[:clients], [buffer[:clients] for buffer in buffers]
            inputs = parameters, frozen, x, y, weights
            shapes_now = [part.shape[1:] for part in flat((x, y))]
            if shapes_now != shaped:
                step, shaped = self._step(inputs, flat(inputs)), shapes_now
            if step is None:
                return None
            values = [*flat(inputs), rate, *buffers]
            (losses,) = self._graphs.of(step, len(parameters), values)(*values)
            if labelled is not None:
                losses = torch.where(labelled, losses, 0)
            total[:clients] += losses
            counted[:clients] += 1 if labelled is None else labelled
        return total, counted

    def _noted(self, inputs: Any, tensors: list[Tensor]) -> tuple[Graphed, list[Tensor]]:
        graph, _ = notes(self._program, inputs, tensors)
        return graph, [few(tensor) for tensor in tensors]


def _first(clients: int, stacked: Tensors) -> Tensors:
    return {name: tensor[:clients] for name, tensor in stacked.items()}
