"""What a model takes, found by trying it on a few examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedjoint._util.wording import first_line
from fedjoint.model.joint import JointModel
from fedjoint.randomness import seeded, seeded_elsewhere
from fedjoint.training.balance import Balance
from fedjoint.training.gradients import Kernel, make_kernel
from fedjoint.training.side_effects import side_effects

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
    """

    sequential: str | None
    train: int
    evaluate: int


def examine(model: JointModel, balance: Balance, examples: Tensor) -> Traits:
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
        why = (
            side_effects(model, examples[:2].repeat_interleave(2, 0))
            or _by_kind(model)
            or trial.unbatched()
            or trial.unbatched(evaluate=True)
            or trial.mixes()
            or trial.mixes(evaluate=True)
        )
    if why is None and max(train, evaluate) > 1:
        why = "the model does not take a batch of one example"
    return Traits(why, train, evaluate)


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

    def __init__(self, model: JointModel, balance: Balance, examples: Tensor):
        self.model, self.balance = model, balance
        self.first = examples[:1]
        differs = (examples != self.first).flatten(1).any(1)
        self.others = examples[differs][: _MOST - 2]
        self.single, self.batched = (
            make_kernel(model, balance, batched=batched, precision="float32", compiled=False)
            for batched in (False, True)
        )

    def unbatched(self, evaluate: bool = False) -> str | None:
        """Say why the model does not run as a batched program, or None if it does."""
        try:
            self._run(self.batched, self.first.expand(2, *self.first.shape[1:]), evaluate)
        except Exception as error:  # whatever a model may raise under vmap
            return first_line(error)
        return None

    def mixes(self, evaluate: bool = False) -> str | None:
        """Say why padding would be seen, or None if it would not."""
        if not len(self.others):
            return "no two different examples are there to try the model on"
        # Padding has no labels: whatever it is, losses and gradients must not change. It may not
        # change what the model remembers, either.
        one = self.first.expand(2 + len(self.others), *self.first.shape[1:])
        several = torch.cat([one[:2], self.others])
        try:
            (expected, _), (found, changed) = (
                self._run(self.single, x, evaluate) for x in (one, several)
            )
        except Exception as error:  # whatever a model may raise
            return first_line(error)
        if changed:
            return f"{changed[0]} changes in every pass of the model"
        # Some kernels of GPUs add up in any order.
        numbers = torch.cat([tensor.flatten() for tensor in found])
        noise = 1e-5 * float(numbers.nan_to_num(0, 0, 0).abs().max())
        if all(
            torch.allclose(a, b, rtol=1e-3, atol=noise, equal_nan=True)
            for a, b in zip(expected, found, strict=True)
        ):
            return None
        mode = "evaluation" if evaluate else "training"
        return f"in {mode} the model mixes the examples of a batch"

    def fewest(self, evaluate: bool = False) -> int:
        """Return how many examples, 1 or 2, a batch must have."""
        return 2 if self._finite(2, evaluate) and not self._finite(1, evaluate) else 1

    def _finite(self, examples: int, evaluate: bool) -> bool:
        x = torch.cat([self.first, self.others, self.first])[:examples]
        try:
            found, _ = self._run(self.single, x, evaluate)
        except Exception:  # whatever a model may raise
            return False
        return all(bool(tensor.isfinite().all()) for tensor in found)

    def _run(
        self, kernel: Kernel, x: Tensor, evaluate: bool = False
    ) -> tuple[list[Tensor], list[str]]:
        """Return gradients and losses, and the names of the buffers that changed."""
        everything = {n: t.detach()[None] for n, t in self.model.state_dict().items()}
        buffers = {n: t for n, t in self.model.named_buffers() if n in everything}
        everything |= {n: t[None].clone() for n, t in buffers.items()}
        everything |= {n: t[None].to(x.device) for n, t in self.balance.private().items()}
        names = {n for n, p in self.model.named_parameters() if p.requires_grad}
        names |= set(self.balance.trained)
        trained = {n: t for n, t in everything.items() if n in names}
        frozen = {n: t for n, t in everything.items() if n not in names}
        y = {}
        for task in self.balance.tasks:
            labels = task.missing(len(x)).to(x.device)
            labels[:2] = 0
            y[task.name] = labels[None]
        weights = torch.ones(1, len(self.balance.tasks), device=x.device)
        self.model.train(not evaluate)
        try:
            with seeded(x.device, 0):
                found = kernel(trained, frozen, x[None], y, weights)
        finally:
            self.model.train()
        changed = [n for n, t in buffers.items() if not torch.equal(everything[n][0], t)]
        return [*found.of.values(), found.losses], changed
