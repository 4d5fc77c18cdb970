"""The joint model: one backbone, one head per task, and which tensors are shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.tasks import Task
from fedjoint.randomness import Purpose, derive, seeded


class JointModel(nn.Module):
    """A backbone and a ``ModuleDict`` of task heads.

    Args:
        backbone: maps inputs ``[n, ...]`` to features ``[n, features]``.
        heads: task name -> head, ``[n, features]`` to ``[n, outputs]``.
        norm: ``shared`` sends BatchNorm parameters and floating-point buffers with the backbone;
            ``local`` keeps them on the client (FedBN, Li et al., ICLR 2021,
            https://arxiv.org/abs/2102.07623). Integer buffers are always local.
    """

    def __init__(self, backbone: nn.Module, heads: dict[str, nn.Module], norm: str = "shared"):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.norm = norm

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the output of each of ``tasks`` (default: all) from one pass of the backbone."""
        features = self.backbone(x)
        return {name: self.heads[name](features) for name in tasks or self.heads}

    def layout(self) -> Layout:
        """Return the layout of the shared tensors."""
        learnt: dict[str, Tensor] = dict(self.backbone.named_parameters())
        buffers: dict[str, Tensor] = {}
        if self.norm == "shared":
            buffers = {n: b for n, b in self.backbone.named_buffers() if b.is_floating_point()}
        else:
            kept = set(self._normalisation())
            learnt = {n: p for n, p in learnt.items() if n not in kept}
        tensors = {f"backbone.{n}": t for n, t in (learnt | buffers).items()}
        return Layout.of(tensors, [f"backbone.{n}" for n in buffers])

    def private(self, tasks: Iterable[str]) -> dict[str, Tensor]:
        """Return what a client with ``tasks`` keeps: heads, and whatever is not shared."""
        shared = self.layout().shapes
        prefixes = ("backbone.", *(f"heads.{task}." for task in tasks))
        return {
            name: tensor.detach().clone()
            for name, tensor in self.state_dict().items()
            if name not in shared and name.startswith(prefixes)
        }

    def _normalisation(self) -> Iterable[str]:
        for prefix, module in self.backbone.named_modules():
            if isinstance(module, _BatchNorm):
                yield from (f"{prefix}.{n}".lstrip(".") for n, _ in module.named_parameters())


def build_model(
    backbone: Callable[[], nn.Module],
    tasks: Sequence[Task],
    example: Tensor,
    *,
    norm: str,
    seed: int,
) -> JointModel:
    """Build the model with the same initial weights on every machine.

    Args:
        backbone: factory of the backbone.
        tasks: the tasks; each gets its head.
        example: ``[1, ...]`` one input, to find the number of features.
        norm: see :class:`JointModel`.
        seed: seeds the initial weights; global random state is left as it was.

    Raises:
        UserError: the backbone cannot be built, or does not take such inputs.
    """
    with seeded(torch.device("cpu"), int(derive(seed, Purpose.BACKBONE))):
        try:
            body = backbone()
            body.eval()
            with torch.no_grad():
                # Twice: BatchNorm without running statistics takes no single example.
                features = body(torch.cat([example, example])).shape[-1]
        except UserError:
            raise
        except Exception as error:  # whatever a module may raise
            inputs = f"{tuple(example.shape[1:])} {str(example.dtype).removeprefix('torch.')}"
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"the backbone does not take inputs of {inputs}: {why}; set model.backbone"
            ) from error
    body.train()
    heads = {}
    for task in tasks:
        # By name: a machine that lacks other tasks makes the same head.
        with seeded(torch.device("cpu"), int(derive(seed, Purpose.HEAD, task.name))):
            heads[task.name] = task.make_head(features)
    return JointModel(body, heads, norm)
