"""Steps of SGD that are traced, once for each form of what they take."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedjoint.config.schema import OptimiserConfig
from fedjoint.model.tree import Input
from fedjoint.training.fused import descending
from fedjoint.training.graphs import Step
from fedjoint.training.notes import Graphed
from fedjoint.training.quick import quicken
from fedjoint.training.replay import shapes

log = logging.getLogger("fedjoint.training")

Tensors = dict[str, Tensor]


class Few(NamedTuple):
    """A minibatch of the first clients; the others have taken all their steps.

    Attributes:
        clients: how many.
        x: ``[clients, batch, ...]`` inputs.
        y: task name -> ``[clients, batch, ...]`` labels.
        labelled: ``[clients, tasks]`` bool, where it has a label of the task; None where no
            client's data lack any.
    """

    clients: int
    x: Input
    y: Tensors
    labelled: Tensor | None


class Stepper(ABC):
    """Base of what takes traced steps, which change the weights in place.

    Args:
        program: (trained, frozen, x, y, task weights) -> gradients of what is trained, and losses
            of the tasks; it draws no random numbers.
        rule: SGD.
    """

    def __init__(self, program: Callable[..., Any], rule: OptimiserConfig) -> None:
        self._program, self._rule = program, rule
        self._traced: dict[Hashable, Step | None] = {}

    @abstractmethod
    def _noted(self, inputs: Any, tensors: list[Tensor]) -> tuple[Graphed, list[Tensor]]:
        """Return the graph of the program, and tensors to try it on, which it may change."""

    def _step(self, inputs: Any, tensors: list[Tensor]) -> Step | None:
        """Return a step for ``inputs``, whose tensors are ``tensors``; None: it is not traced."""
        key = shapes(inputs, tensors)
        if key not in self._traced:
            self._traced[key] = self._trace(inputs, tensors)
        return self._traced[key]

    def _trace(self, inputs: Any, tensors: list[Tensor]) -> Step | None:
        rule, trained = self._rule, len(inputs[0])
        try:
            graph, tried = self._noted(inputs, tensors)
            step = descending(graph, trained, rule.momentum, rule.weight_decay)
            buffers = [torch.zeros_like(p) for p in tried[:trained]] if rule.momentum else []
            return quicken(step, [*tried, rule.lr, *buffers]).forward
        except Exception as error:  # whatever a model may do that cannot be written down
            log.info("a step of descent is not traced: %s", error)
            return None
