"""Optimisers over stacked parameters: every client has its own state and learning rate.

The update rules are PyTorch's (``torch.optim.SGD``, ``Adam``, ``AdamW``), tensor by tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.config.schema import OptimiserConfig

Tensors = dict[str, Tensor]


class Optimiser:
    """Steps a dict of stacked ``[clients, ...]`` parameters in place.

    Args:
        config: which rule, and its constants.
        parameters: the trainable tensors; they are updated in place.
        scale: ``[clients]`` factor on the learning rate of each client, or None.
    """

    def __init__(self, config: OptimiserConfig, parameters: Tensors, scale: Tensor | None = None):
        self.config, self.parameters, self.scale = config, parameters, scale
        self.taken: Tensor | int = 0
        self.state: dict[str, tuple[Tensor, ...]] = {}

    def step(self, gradients: Tensors, active: Tensor | None = None) -> None:
        """Take one step along ``gradients`` (``[clients, ...]`` each).

        Args:
            gradients: parameter name -> gradient.
            active: ``[clients]`` bool; the others keep parameters and state. None means all.
        """
        self.taken = self.taken + (1 if active is None else active.long())
        for name, parameter in self.parameters.items():
            self._step(name, parameter, gradients[name], active)

    def _step(self, name: str, p: Tensor, g: Tensor, active: Tensor | None) -> None:
        c = self.config
        if c.name == "sgd" and not c.momentum and self.scale is None and active is None:
            # The hot path of a large simulation: one pass over the parameter.
            p.sub_(g.add(p, alpha=c.weight_decay) if c.weight_decay else g, alpha=c.lr)
            return
        new, state = self._sgd(name, p, g) if c.name == "sgd" else self._adam(name, p, g)
        if active is not None:
            keep = _like(active, p)
            new = torch.where(keep, new, p)
            old = self.state.get(name, tuple(torch.zeros_like(s) for s in state))
            state = tuple(torch.where(keep, s, o) for s, o in zip(state, old, strict=True))
        p.copy_(new)
        self.state[name] = state

    def _lr(self, p: Tensor) -> Tensor | float:
        return self.config.lr if self.scale is None else self.config.lr * _like(self.scale, p)

    def _sgd(self, name: str, p: Tensor, g: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        c = self.config
        g = g + c.weight_decay * p
        if not c.momentum:
            return p - self._lr(p) * g, ()
        # A zero buffer gives PyTorch's first step (buffer = gradient), as it has no dampening.
        previous = self.state[name][0] if name in self.state else torch.zeros_like(g)
        buffer = c.momentum * previous + g
        return p - self._lr(p) * buffer, (buffer,)

    def _adam(self, name: str, p: Tensor, g: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        c = self.config
        lr = self._lr(p)
        if c.name == "adamw":
            p = p * (1 - lr * c.weight_decay)
        else:
            g = g + c.weight_decay * p
        zero = torch.zeros_like(g)
        m, v = self.state.get(name, (zero, zero))
        m = c.beta1 * m + (1 - c.beta1) * g
        v = c.beta2 * v + (1 - c.beta2) * g * g
        # A client that has not stepped yet is masked out; clamp keeps its correction finite.
        # In float64, in which a beta next to one does not become one.
        taken = torch.as_tensor(self.taken, dtype=torch.float64, device=p.device).clamp(min=1)
        taken = _like(taken, p) if taken.ndim else taken
        first, second = ((1 - beta**taken).to(p.dtype) for beta in (c.beta1, c.beta2))
        return p - lr * (m / first) / ((v / second).sqrt() + c.epsilon), (m, v)


def _like(per_client: Tensor, p: Tensor) -> Tensor:
    """Reshape ``[clients]`` to broadcast against ``p``."""
    return per_client.view(-1, *(1,) * (p.ndim - 1))
