"""The joint model: one backbone, one head per task, and which tensors are shared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedjoint._util.wording import first_line
from fedjoint.errors import UserError
from fedjoint.model.bounded import Bounded
from fedjoint.model.features import Features, describe
from fedjoint.model.frozen import moving_buffers
from fedjoint.model.ids import Known, LookingOn
from fedjoint.model.layout import Layout
from fedjoint.model.sharing import choose_shared
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, cat, count, form
from fedjoint.randomness import Purpose, derive, seeded

T = TypeVar("T")


class JointModel(nn.Module):
    """A backbone and a ``ModuleDict`` of task heads.

    What trains is shared, or private to each client. What does not (parameters with
    ``requires_grad`` False, and buffers that are constants) is neither: the module's own serves
    all clients.

    Args:
        backbone: maps inputs ``[n, ...]``, a tensor or a dict of them, to features: a tensor
            ``[n, ...]``, or a dict of them.
        heads: task name -> head, features to outputs ``[n, ...]``.
        norm: ``shared`` shares BatchNorm parameters and floating-point buffers as ``share`` says;
            ``local`` keeps them on the client (FedBN, Li et al., ICLR 2021,
            https://arxiv.org/abs/2102.07623). Integer buffers are never shared.
        share: patterns of the names of what is shared of the backbone, see
            :func:`fedjoint.model.sharing.choose_shared`.
        share_heads: share what trains of the heads, too: a client sends nothing new of a head whose
            task it lacks.
        moving: names of the backbone's buffers that are no constants; None: all.

    Attributes:
        held_once: names of the state that is neither sent nor kept by any client.
        ids: which ids the backbone knows, see :mod:`fedjoint.model.ids`; empty: not known.

    Raises:
        UserError: a pattern matches nothing, or nothing is shared.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: dict[str, nn.Module],
        norm: str = "shared",
        share: Sequence[str] = ("*",),
        share_heads: bool = False,
        moving: Collection[str] | None = None,
    ):
        super().__init__()
        self.ids: Known = {}
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.held_once = frozenset(self._constants(moving))
        self._layout = self._lay_out(norm, share, share_heads)

    def forward(self, x: Input, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the output of each of ``tasks`` (default: all) from one pass of the backbone."""
        features = self.backbone(x)
        return {name: self.heads[name](features) for name in tasks or self.heads}

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield each module under its first name, even where all its names are asked for.

        ``torch.func.functional_call`` replaces the tensors of a module once for each name that it
        finds of it, and would leave those of the last but one in it.
        """
        return super().named_modules(memo, prefix, True)

    def layout(self) -> Layout:
        """Return the layout of the shared tensors."""
        return self._layout

    def private(self, tasks: Iterable[str]) -> dict[str, Tensor]:
        """Return what a client with ``tasks`` keeps: heads, and whatever is not shared."""
        prefixes = ("backbone.", *(f"heads.{task}." for task in tasks))
        return {
            name: tensor.detach().clone()
            for name, tensor in self.state_dict().items()
            if name not in self._layout.shapes
            and name not in self.held_once
            and name.startswith(prefixes)
        }

    def frozen(self) -> dict[str, Tensor]:
        """Return the backbone's tensors that do not train, by name, in the module's own memory.

        Without further names, and buffers that are not finite.
        """
        left_out = self._further_names() | self._infinite()
        return {
            name: tensor.detach()
            for name, tensor in self.state_dict().items()
            if name.startswith("backbone.") and name in self.held_once - left_out
        }

    def kept(self) -> dict[str, Tensor]:
        """Return what trains of the backbone and is private, in the module's own memory."""
        own = self._layout.shapes.keys() | self.held_once
        return {
            name: tensor.detach()
            for name, tensor in self.state_dict().items()
            if name.startswith("backbone.") and name not in own
        }

    def _lay_out(self, norm: str, share: Sequence[str], share_heads: bool) -> Layout:
        learnt = dict(self._trained())
        statistics = {
            f"backbone.{n}": b
            for n, b in self.backbone.named_buffers()
            if b.is_floating_point() and f"backbone.{n}" not in self.held_once
        }
        if norm == "local":
            statistics, local = {}, set(self._normalisation())
            learnt = {n: p for n, p in learnt.items() if n not in local}
        shared = choose_shared(share, learnt, statistics, self.held_once)
        tensors = {n: t for n, t in learnt.items() if n in shared}
        if share_heads:
            named = self.heads.named_parameters(prefix="heads")
            tensors |= {n: p for n, p in named if p.requires_grad}
        tensors |= {n: t for n, t in statistics.items() if n in shared}
        return Layout.of(tensors, [n for n in statistics if n in shared])

    def _constants(self, moving: Collection[str] | None) -> set[str]:
        """Return the names of the state of which the module's own serves all clients.

        Beside what does not train, these are buffers outside the state, buffers that are not
        finite, such as masks, and further names.
        """
        frozen = {n for n, p in self.named_parameters() if not p.requires_grad}
        names, persistent = dict(self.backbone.named_buffers()), self.backbone.state_dict()
        still = set() if moving is None else names.keys() - moving
        still |= names.keys() - persistent.keys()
        return frozen | self._infinite() | {f"backbone.{n}" for n in still} | self._further_names()

    def _infinite(self) -> set[str]:
        return {n for n, b in self.named_buffers() if not b.isfinite().all()}

    def _further_names(self) -> set[str]:
        """Return the names, but for the first, of parameters, and of all in a module of two."""
        first = dict(self.named_parameters()).keys() | dict(self.named_buffers()).keys()
        return self.state_dict().keys() - first

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.backbone.named_parameters(prefix="backbone"):
            if parameter.requires_grad:
                yield name, parameter

    def _normalisation(self) -> Iterator[str]:
        for prefix, module in self.backbone.named_modules(prefix="backbone"):
            if isinstance(module, _BatchNorm):
                yield from (f"{prefix}.{n}" for n, _ in module.named_parameters())


def build_model(
    backbone: Callable[[], nn.Module],
    tasks: Sequence[Task],
    example: Input,
    *,
    norm: str = "shared",
    share: Sequence[str] = ("*",),
    share_heads: bool = False,
    seed: int,
) -> JointModel:
    """Build the model with the same initial weights on every machine.

    Args:
        backbone: factory of the backbone.
        tasks: the tasks; each gets its head.
        example: ``[1, ...]`` one input, to find the shape of the features.
        norm: see :class:`JointModel`.
        share: see :class:`JointModel`.
        share_heads: see :class:`JointModel`.
        seed: seeds the initial weights; global random state is left as it was.

    Raises:
        UserError: the backbone cannot be built, does not take such inputs, or shares nothing.
    """
    with seeded(torch.device("cpu"), int(derive(seed, Purpose.BACKBONE))):
        body = _build(backbone)
        _check_types(body, "backbone.")
        body.eval()
        # Twice: BatchNorm without running statistics takes no single example.
        twice = cat([example, example])
        with LookingOn(twice) as looking:
            features = _features(body, twice)
        moving = moving_buffers(body, twice)
    body.train()
    heads = {}
    for task in tasks:
        # By name: a machine that lacks other tasks makes the same head.
        seed_of_head = int(derive(seed, Purpose.HEAD, task.name))
        with seeded(torch.device("cpu"), seed_of_head), Bounded():
            heads[task.name] = _head(task, features)
        _check_types(heads[task.name], f"heads.{task.name}.")
    model = JointModel(body, heads, norm, share, share_heads, moving)
    model.ids = looking.known
    return model


def _head(task: Task, features: Features) -> nn.Module:
    what = f"the head of task {task.name!r}"
    try:
        head = task.make_head(features)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"{what} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(head, nn.Module):
        raise UserError(f"{what} is {type(head).__name__}: return a torch.nn.Module")
    return copied(head, what)


def copied(module: T, what: str, but: Iterable[Tensor] = ()) -> T:
    """Return a copy of ``module``.

    Args:
        module: to copy.
        what: it is, for errors.
        but: tensors that original and copy share.

    Raises:
        UserError: PyTorch cannot copy it.
    """
    try:
        return copy.deepcopy(module, {id(tensor): tensor for tensor in but})
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
        with Bounded():
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


def _features(body: nn.Module, examples: Input) -> Features:
    """Return what ``body`` makes of an input, as heads are told."""
    inputs = form(examples)
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
    try:
        return describe(features, count(examples))
    except UserError as error:
        raise UserError(f"the backbone, of {count(examples)} inputs of {inputs}: {error}") from None


def _check_types(module: nn.Module, prefix: str) -> None:
    """Refuse what would train in another type than it has."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{prefix}{name} is {kind}, and only float32 is trained: call .float() on the "
                "model; for mixed precision, set local.precision = 'bfloat16'"
            )
