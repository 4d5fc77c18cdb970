"""The joint model: one backbone, one head per task, and which tensors are shared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedjoint._util.wording import first_line
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.tasks import Task
from fedjoint.randomness import Purpose, derive, seeded

T = TypeVar("T")


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
            buffers = dict(self._buffers_that_move())
        else:
            kept = set(self._normalisation())
            learnt = {n: p for n, p in learnt.items() if n not in kept}
        tensors = {f"backbone.{n}": t for n, t in (learnt | buffers).items()}
        return Layout.of(tensors, [f"backbone.{n}" for n in buffers])

    def private(self, tasks: Iterable[str]) -> dict[str, Tensor]:
        """Return what a client with ``tasks`` keeps: heads, and whatever is not shared."""
        shared, constants = self.layout().shapes, self._constants()
        prefixes = ("backbone.", *(f"heads.{task}." for task in tasks))
        return {
            name: tensor.detach().clone()
            for name, tensor in self.state_dict().items()
            if name not in shared and name not in constants and name.startswith(prefixes)
        }

    def _buffers_that_move(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the backbone's floating-point buffers, but for constants."""
        persistent, constants = self.backbone.state_dict(), self._constants()
        for name, buffer in self.backbone.named_buffers():
            constant = name not in persistent or f"backbone.{name}" in constants
            if buffer.is_floating_point() and not constant:
                yield name, buffer

    def _constants(self) -> set[str]:
        """Return the names of the state that is neither sent nor kept: the module's own serves all.

        These are buffers that are not finite, such as masks, and further names of one parameter.
        """
        buffers = {n for n, b in self.named_buffers() if not b.isfinite().all()}
        names = {n for n, _ in self.named_parameters(remove_duplicate=False)}
        return buffers | (names - dict(self.named_parameters()).keys())

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
        body = _build(backbone)
        _check_types(body, "backbone.")
        body.eval()
        # Twice: BatchNorm without running statistics takes no single example.
        features = _features(body, torch.cat([example, example]))
    body.train()
    heads = {}
    for task in tasks:
        # By name: a machine that lacks other tasks makes the same head.
        with seeded(torch.device("cpu"), int(derive(seed, Purpose.HEAD, task.name))):
            heads[task.name] = _head(task, features)
        _check_types(heads[task.name], f"heads.{task.name}.")
    return JointModel(body, heads, norm)


def _head(task: Task, features: int) -> nn.Module:
    what = f"the head of task {task.name!r}"
    try:
        head = task.make_head(features)
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"{what} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(head, nn.Module):
        raise UserError(f"{what} is {type(head).__name__}: return a torch.nn.Module")
    return copied(head, what)


def copied(module: T, what: str) -> T:
    """Return a copy of ``module``.

    Raises:
        UserError: PyTorch cannot copy it.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        if "deepcopy" not in str(error):
            raise
        raise UserError(
            f"{what} cannot be copied, as it keeps a tensor that it computed: in place of "
            "torch.nn.utils.weight_norm or spectral_norm, take that of "
            "torch.nn.utils.parametrizations"
        ) from error


def _build(backbone: Callable[[], nn.Module]) -> nn.Module:
    """Return a module of our own, whatever else the factory's caller does with what it returns."""
    try:
        body = copied(backbone(), "the backbone")
    except UserError:
        raise
    except Exception as error:  # whatever a factory may raise
        raise UserError(f"the backbone cannot be built: {first_line(error)}") from error
    if not isinstance(body, nn.Module):
        raise UserError(
            f"the backbone's factory returns {type(body).__name__}: return a torch.nn.Module"
        )
    return body


def _features(body: nn.Module, examples: Tensor) -> int:
    """Return the number of features that ``body`` makes of an input."""
    inputs = f"{tuple(examples.shape[1:])} {str(examples.dtype).removeprefix('torch.')}"
    try:
        with torch.no_grad():
            features = body(examples)
    except UserError:
        raise
    except Exception as error:  # whatever a module may raise
        why = first_line(error)
        raise UserError(
            f"the backbone does not take inputs of {inputs}: {why}; set model.backbone"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(examples):
        has = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UserError(
            f"of {len(examples)} inputs of {inputs} the backbone makes {has}: return a tensor "
            f"[{len(examples)}, features]"
        )
    return features.shape[1]


def _check_types(module: nn.Module, prefix: str) -> None:
    """Refuse what would train in another type than it has."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{prefix}{name} is {kind}, and only float32 is trained: call .float() on the "
                "model; for mixed precision, set local.precision = 'bfloat16'"
            )
