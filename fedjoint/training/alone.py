"""Plain and momentum SGD of one client, in a loop with nothing in it that could be outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fedjoint.config.schema import OptimiserConfig
from fedjoint.model.holding import holding
from fedjoint.model.joint import JointModel
from fedjoint.model.tree import Input, alone, each
from fedjoint.training.stepper import Few

Tensors = dict[str, Tensor]

#: (state, x, y, task weights) of one client, whose weights the model holds -> what is minimised,
#: ``[tasks]`` losses
Objective = Callable[[Tensors, Input, Tensors, Tensor], tuple[Tensor, Tensor]]


def laid_out(tensor: Tensor, channels_last: bool) -> Tensor:
    """Return images, or the weights of their convolutions, with the channels last if so asked."""
    if channels_last and tensor.ndim == 4:
        # A copy: with one channel, PyTorch takes what it has for the layout that was asked for.
        return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)
    return tensor


class Alone:
    """Takes the steps of one client.

    Args:
        model: holds the client's weights meanwhile; its own are as they were afterwards.
        objective: what is minimised.
        rule: SGD.
        channels_last: keep images and the weights of convolutions with the channels last, which
            makes the CPU's convolutions faster.
    """

    def __init__(
        self, model: JointModel, objective: Objective, rule: OptimiserConfig, *, channels_last: bool
    ) -> None:
        self._model, self._names = model, set(model.state_dict())
        parameters = model.named_parameters(remove_duplicate=False)
        self._tied = len(list(parameters)) > len(list(model.parameters()))
        self._objective, self._rule, self._channels_last = objective, rule, channels_last

    def run(
        self,
        parameters: Tensors,
        frozen: Tensors,
        batches: Iterator[Few],
        weights: Tensor,
        rate: float,
    ) -> tuple[Tensor, Tensor]:
        """Take a step with every minibatch; see :meth:`fedjoint.training.descent.Descent.run`.

        Buffers among ``frozen`` are changed in place by what the model does to them.
        """
        own = {n: self._laid_out(p[0]).detach().requires_grad_() for n, p in parameters.items()}
        state = {**own, **alone(frozen)}
        held = {n: t for n, t in state.items() if n in self._names}

        def descend() -> tuple[Tensor, Tensor]:
            return self._descend(own, state, batches, weights[0], rate)

        total, counted = holding(self._model, held, descend, tied=self._tied)
        for name, parameter in parameters.items():
            if own[name].data_ptr() != parameter.data_ptr():
                parameter[0] = own[name].detach()
        return total[None], counted[None]

    def _descend(
        self,
        own: Tensors,
        state: Tensors,
        batches: Iterator[Few],
        weights: Tensor,
        rate: float,
    ) -> tuple[Tensor, Tensor]:
        places = list(own.values())
        buffers = [torch.zeros_like(p) for p in places if self._rule.momentum]
        total = torch.zeros(weights.shape, device=weights.device)
        counted = torch.zeros_like(total)
        for _, x, y, labelled in batches:
            first = each(lambda part: self._laid_out(part[0]), x)
            value, losses = self._objective(state, first, alone(y), weights)
            found = torch.autograd.grad(value, places, allow_unused=True, materialize_grads=True)
            with torch.no_grad():
                self._step(places, list(found), buffers, rate)
            total += losses if labelled is None else torch.where(labelled[0], losses, 0)
            counted += 1 if labelled is None else labelled[0]
        return total, counted

    def _laid_out(self, tensor: Tensor) -> Tensor:
        return laid_out(tensor, self._channels_last)

    def _step(
        self, places: list[Tensor], found: list[Tensor], buffers: list[Tensor], rate: float
    ) -> None:
        rule = self._rule
        if rule.weight_decay:
            torch._foreach_add_(found, places, alpha=rule.weight_decay)
        if rule.momentum:
            torch._foreach_mul_(buffers, rule.momentum)
            torch._foreach_add_(buffers, found)
            found = buffers
        torch._foreach_add_(places, found, alpha=-rate)
