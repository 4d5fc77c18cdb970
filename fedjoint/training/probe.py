"""What a model takes, found by trying it on a few examples."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from fedjoint._util.wording import first_line
from fedjoint.model.joint import JointModel
from fedjoint.model.tree import Input, cat, count, each, first, named
from fedjoint.randomness import default_generators, seeded, seeded_elsewhere
from fedjoint.training.balance import Balance
from fedjoint.training.cohort import Stack
from fedjoint.training.draws import Constants, InOrder
from fedjoint.training.gradients import Kernel, make_kernel, make_measure
from fedjoint.training.side_effects import side_effects
from fedjoint.training.slow_operations import slow_operations

Tensors = dict[str, Tensor]

#: What PyTorch says in three sentences.
_BRANCH = "the model decides by numbers (.item(), or a branch), which torch.func.vmap does not take"

#: Most examples in a trial.
_MOST = 8


@dataclass(frozen=True)
class Traits:
    """How a model treats the examples of a batch.

    Attributes:
        sequential: why clients cannot be trained and evaluated as one batched program, which pads
            short batches; None where they can.
        train: fewest examples in one pass of training, 1 or 2.
        evaluate: fewest examples in one pass of evaluation, 1 or 2.
        draws: whether the model draws PyTorch's random numbers in training.
        scattered: whether it does for tensors whose elements are in another order in memory.
        slow: operations that a batched program runs for one client after the other.
    """

    sequential: str | None
    train: int
    evaluate: int
    draws: bool
    scattered: bool
    slow: list[str]


def examine(model: JointModel, balance: Balance, examples: Input) -> Traits:
    """Try ``model`` on ``examples``; its weights and all random numbers stay as they are.

    Args:
        model: in training mode.
        balance: combines the losses of all tasks.
        examples: ``[n, ...]`` inputs, the more different the better, on the model's device.

    Raises:
        UserError: the model remembers something where no client can keep it for itself.
    """
    with seeded_elsewhere(0):
        trial = _Trial(model, balance, examples)
        train, evaluate = trial.fewest(), trial.fewest(evaluate=True)
        draws, scattered = trial.draws()
        with slow_operations() as slow:
            why = (
                side_effects(model, each(lambda x: x[:2].repeat_interleave(2, 0), examples))
                or _by_kind(model)
                or trial.fails()
                or trial.mixes()
                or trial.mixes(evaluate=True)
                or trial.differs()
                or trial.differs(evaluate=True)
            )
    if why is None and max(train, evaluate) > 1:
        why = "the model does not take a batch of one example"
    return Traits(why, train, evaluate, draws, scattered, slow)


def _by_kind(model: JointModel) -> str | None:
    for name, module in model.named_modules():
        what = f"{name} ({type(module).__name__})"
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            return f"{what} keeps running statistics in training mode"
        if isinstance(module, _BatchNorm):
            return f"{what} mixes the examples of a batch"
        if isinstance(module, nn.RNNBase):
            return f"{what} has no batching rule"
    return None


class _Trial:
    """Gradients and losses of batches in which only the first examples have labels."""

    def __init__(self, model: JointModel, balance: Balance, examples: Input):
        self.model, self.balance = model, balance
        self.first: Input = each(lambda x: x[:1], examples)
        self.device = first(examples).device
        differ = [(x != x[:1]).reshape(len(x), -1).any(1) for x in named(examples).values()]
        differs = torch.stack(differ).any(0)
        self.others: Input = each(lambda x: x[differs][: _MOST - 2], examples)
        self.single, self.batched = (
            make_kernel(model, balance, batched=batched, precision="float32", traced=False)
            for batched in (False, True)
        )

    def differs(self, evaluate: bool = False) -> str | None:
        """Say what a batched program makes otherwise than one client after the other, or None.

        Two clients with other weights, other examples and another number of them take two steps, or
        are measured, on constants in place of random numbers, of which padding would take some.
        """
        x = cat([self.first, self.others])
        sizes = [count(x), (count(x) + 1) // 2]
        own = [x, each(lambda part: part.flip(0)[: sizes[1]], x)]

        def padded(longest: Tensor, shortest: Tensor) -> Tensor:
            padding = shortest[:1].expand(sizes[0] - sizes[1], *shortest.shape[1:])
            return torch.stack([longest, torch.cat([shortest, padding])])

        try:
            act = self._measured if evaluate else self._trained
            together = act([0, 1], each(padded, *own), sizes)
            alone = [act([c], each(_one, own[c]), [size]) for c, size in enumerate(sizes)]
        except Exception as error:  # whatever a model may raise, alone or under vmap
            why = first_line(error)
            return _BRANCH if why.startswith("vmap: It looks like you're either") else why
        mode = "evaluation" if evaluate else "training"
        for client, expected in enumerate(alone):
            same = _close(
                [t[0] for t in expected.values()], [together[n][client] for n in expected]
            )
            if not all(same):
                name = list(expected)[same.index(False)]
                return f"in {mode}, {name} would be another for clients that train at once"
        return None

    def _trained(self, clients: list[int], x: Input, sizes: list[int]) -> Tensors:
        """Return the clients' tensors after two steps of plain descent, stacked, and their losses.

        Args:
            clients: 0, 1 or both; the second has parameters that are a little larger.
            x: ``[clients, n, ...]`` examples; without padding where there is one client.
            sizes: how many of them have labels.
        """
        kernel = self.batched if len(clients) > 1 else self.single
        trained, frozen = self._divided(clients)
        losses = []
        with seeded(self.device, 0), Constants():
            for _ in range(2):
                y, weights = self._labels(x, sizes), self._weights(len(clients))
                found = kernel(trained, frozen, x, y, weights)
                trained = {n: t - 0.1 * found.of[n] for n, t in trained.items()}
                losses.append(found.losses)
        return {**trained, **frozen, "the loss": torch.stack(losses, 1)}

    def _measured(self, clients: list[int], x: Input, sizes: list[int]) -> Tensors:
        """Return the clients' tensors after an evaluation, and their losses; see above."""
        trained, frozen = self._divided(clients)
        stack = Stack(x, self._labels(x, sizes), np.array(sizes))
        measure = make_measure(
            self.model,
            self.balance.tasks,
            batched=len(clients) > 1,
            precision="float32",
            rows=stack.rows,
        )
        with seeded(self.device, 0), Constants():
            return {**frozen, "the loss": measure({**trained, **frozen}, stack)}

    def _state(self) -> Tensors:
        """Return what clients have of the model's own tensors; buffers are copies."""
        once = self.model.held_once
        state = {n: t.detach() for n, t in self.model.state_dict().items() if n not in once}
        state |= {n: t.clone() for n, t in self.model.named_buffers() if n in state}
        return state

    def _divided(self, clients: list[int]) -> tuple[Tensors, Tensors]:
        """Return what is trained and what is not of ``clients``, stacked."""
        names = {n for n, p in self.model.named_parameters() if p.requires_grad}
        own = {n: t.to(self.device) for n, t in self.balance.private().items()}
        trained, frozen = {}, {}
        for name, tensor in (self._state() | own).items():
            if name in names or name in self.balance.trained:
                trained[name] = torch.stack([tensor * (1 + 0.05 * client) for client in clients])
            else:
                frozen[name] = torch.stack([tensor] * len(clients))
        return trained, frozen

    def _labels(self, x: Input, sizes: list[int]) -> Tensors:
        """Return labels of zero for the first ``sizes`` of ``x`` ``[clients, n, ...]`` alone."""
        y, rows = {}, first(x).shape[1]
        for task in self.balance.tasks:
            labels = torch.stack([task.missing(rows)] * len(sizes)).to(self.device)
            for row, size in zip(labels, sizes, strict=True):
                row[:size] = 0
            y[task.name] = labels
        return y

    def _weights(self, clients: int) -> Tensor:
        return torch.ones(clients, len(self.balance.tasks), device=self.device)

    def mixes(self, evaluate: bool = False) -> str | None:
        """Say why padding would be seen, or None if it would not."""
        if not count(self.others):
            return "no two different examples are there to try the model on"
        # Padding has no labels: whatever it is, losses and gradients must not change. It may not
        # change what the model remembers, either.
        rows = 2 + count(self.others)
        one = each(lambda x: x.expand(rows, *x.shape[1:]), self.first)
        several = cat([self.first, self.first, self.others])
        try:
            (expected, _), (found, changed) = (
                self._run(self.single, x, evaluate) for x in (one, several)
            )
        except Exception as error:  # whatever a model may raise
            return first_line(error)
        if changed:
            return f"{changed[0]} changes in every pass of the model"
        if all(_close(expected, found)):
            return None
        mode = "evaluation" if evaluate else "training"
        return f"in {mode} the model mixes the examples of a batch"

    def fails(self) -> str | None:
        """Say that gradients of an example are finite, and beside a missing label are not."""
        alone, beside = (
            self._finite(each(lambda part, n=rows: part.expand(n, *part.shape[1:]), self.first))
            for rows in (2, 3)
        )
        fine = beside or not alone
        return None if fine else "a loss has no finite gradient beside a missing label"

    def draws(self) -> tuple[bool, bool]:
        """Return whether the model draws in training, and whether for scattered tensors."""
        generators = default_generators(self.device)
        with seeded(self.device, 0), torch.no_grad(), InOrder() as order:
            before = [each.get_state() for each in generators]
            with suppress(Exception):  # whatever a model may raise is said where it is tried
                x = cat([self.first, self.first])
                functional_call(self.model, self._state(), (x, list(self.model.heads)))
            after = [each.get_state() for each in generators]
        return not all(map(torch.equal, before, after)), order.needed

    def fewest(self, evaluate: bool = False) -> int:
        """Return how many examples, 1 or 2, a batch must have."""
        x = cat([self.first, self.others, self.first])
        one, two = (
            self._finite(each(lambda part, n=rows: part[:n], x), evaluate) for rows in (1, 2)
        )
        return 2 if two and not one else 1

    def _finite(self, x: Input, evaluate: bool = False) -> bool:
        try:
            found, _ = self._run(self.single, x, evaluate)
        except Exception:  # whatever a model may raise
            return False
        return all(bool(tensor.isfinite().all()) for tensor in found)

    def _run(
        self, kernel: Kernel, x: Input, evaluate: bool = False
    ) -> tuple[list[Tensor], list[str]]:
        """Return gradients and losses, and the names of the buffers that changed."""
        trained, frozen = self._divided([0])
        before = {n: t.clone() for n, t in frozen.items()}
        self.model.train(not evaluate)
        try:
            with seeded(self.device, 0):
                single = each(_one, x)
                labels = self._labels(single, [2])
                found = kernel(trained, frozen, single, labels, self._weights(1))
        finally:
            self.model.train()
        changed = [n for n, t in frozen.items() if not _same(t, before[n])]
        return [*found.of.values(), found.losses], changed


def _one(x: Tensor) -> Tensor:
    """Return the examples ``x`` ``[n, ...]`` as those of one client, ``[1, n, ...]``."""
    return x[None]


def _same(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same to the bit; GradNorm has NaN for: not yet."""
    return torch.allclose(tensor, other, rtol=0, atol=0, equal_nan=True)


def _close(expected: list[Tensor], found: list[Tensor]) -> list[bool]:
    """Say of each tensor whether it is the same but for rounding.

    Some kernels of GPUs add up in any order, and what is zero but for rounding, such as the
    gradient of the bias of keys in attention, is only small beside the other tensors.
    """
    numbers = torch.cat([tensor.flatten().float() for tensor in expected])
    noise = 1e-5 * float(numbers.nan_to_num(0, 0, 0).abs().max()) if len(numbers) else 0.0
    return [
        torch.allclose(a.float(), b.float(), rtol=1e-3, atol=noise, equal_nan=True)
        for a, b in zip(expected, found, strict=True)
    ]
