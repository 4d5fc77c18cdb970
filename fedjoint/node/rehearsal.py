"""Before the first round: one client goes through loss, metric, step and evaluation."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.limit import LateError, limited
from fedjoint.data.base import Client
from fedjoint.data.loading import load_client
from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.frozen import changes_what_is_held, digest
from fedjoint.model.holding import holding
from fedjoint.model.loss import TaskLoss
from fedjoint.model.metric import Metric
from fedjoint.model.positions import is_known
from fedjoint.model.stream import loaded
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, each, named
from fedjoint.protocol.compression import try_compression
from fedjoint.randomness import seeded, seeded_elsewhere
from fedjoint.training.cohort import Cohort, gather
from fedjoint.training.job import Job
from fedjoint.training.method import HEARD, LocalMethod
from fedjoint.training.trainer import Trainer

log = logging.getLogger("fedjoint.node")

T = TypeVar("T")
Shapes = dict[str, tuple[int, ...]]

_TRIED = 3  # clients with the same tasks, until one passes
_SETS = 8  # sets of tasks, of which a client is tried


def rehearse(trainer: Trainer, method: LocalMethod) -> Shapes:
    """Try a client of each set of tasks on a few of its examples; nothing of that is kept.

    A client whose own data is bad does not keep the others from training: the next is tried.

    Args:
        trainer: of the node.
        method: the run's local method.

    Returns:
        name -> shape of what a client would tell the strategy as a whole, see
        :meth:`fedjoint.training.method.LocalMethod.train`.

    Raises:
        UserError: no client tried could be trained and evaluated; the line says where that failed.
    """
    trainer.traits  # noqa: B018 - what is wrong with the model itself is said first
    trainer.central  # noqa: B018 - then what is wrong with what all clients are measured on
    trainer.public  # noqa: B018 - or compared on
    if trainer.config.strategy.compression.name != "none":
        try_compression(trainer.config.strategy.compression, trainer.layout.parameters.size)
    before = {name: digest({name: t}) for name, t in trainer.model.frozen().items()}
    doubts: set[str] = set()
    told = _try_some(trainer, method, doubts)
    for doubt in sorted(doubts):
        log.warning("%s", doubt)
    for name, tensor in trainer.model.frozen().items():
        if digest({name: tensor}) != before[name]:
            raise changes_what_is_held(name)
    return told


def check_told(told: Mapping[str, Shapes]) -> None:
    """Make sure that clients of all groups would tell the strategy things of one shape.

    Args:
        told: group -> what its clients would tell.

    Raises:
        UserError: two groups differ.
    """
    first: dict[str, tuple[str, tuple[int, ...]]] = {}
    for group, shapes in told.items():
        for name, shape in shapes.items():
            other, known = first.setdefault(name, (group, shape))
            if shape != known:
                raise UserError(
                    f"clients of group {other!r} send {name.removeprefix(HEARD)} of {list(known)}, "
                    f"and those of group {group!r} of {list(shape)}: give their models equally "
                    "many features and outputs, or take another strategy"
                )


def _try_some(trainer: Trainer, method: LocalMethod, doubts: set[str]) -> Shapes:
    passed, bad_data, told = False, None, Shapes()
    for places in _candidates(trainer):
        errors: list[UserError] = []
        for place in places.tolist():
            try:
                with seeded(trainer.device, 0), seeded_elsewhere(0):
                    told |= _try(trainer, method, place, doubts)
            except UserError as error:
                errors.append(error)
            else:
                passed = True
                break
        else:
            for own in errors:
                if not isinstance(own, _DataError):
                    raise own
            bad_data = bad_data or next(iter(errors), None)
    if bad_data and not passed:
        raise bad_data
    return told


class _DataError(UserError):
    """A client's own data is bad, and others may have better."""


def _candidates(trainer: Trainer) -> Iterator[np.ndarray]:
    """Yield a few clients for each set of tasks, those with examples first."""
    data = trainer.problem.data
    _, sets = np.unique(data.tasks, axis=0, return_inverse=True)
    for number in range(min(_SETS, int(sets.max(initial=-1)) + 1)):
        own = np.flatnonzero((sets.reshape(-1) == number) & (data.sizes > 0))
        yield own[:_TRIED]


def _try(trainer: Trainer, method: LocalMethod, place: int, doubts: set[str]) -> Shapes:
    cohort = _few(trainer, place)
    received = trainer.layout.flat(trainer.model.state_dict()).to(trainer.device)
    doubts |= _check_tasks(trainer, cohort)
    try:
        return _step(trainer, method, cohort, received)
    except _BroadcastError:  # it trains with what the strategy sends, which is not here yet
        return _step(trainer, LocalMethod(), cohort, received)


def _step(trainer: Trainer, method: LocalMethod, cohort: Cohort, received: Tensor) -> Shapes:
    fresh = trainer.fresh(cohort.tasks, method, received)
    private = {name: tensor[None].clone() for name, tensor in fresh.items()}
    job = trainer.job(cohort, 1, received, _Absent(), received[None].clone(), private)
    job.budget = {**job.budget, "epochs": None, "steps": 1}
    sent = _named("a step of training", lambda: method.train(job))
    _check_trained(type(method).__name__, job, received, sent)
    _named("its evaluation", lambda: trainer.evaluate(cohort, *method.personal(job)))
    return {n: tuple(tensor.shape[1:]) for n, tensor in sent.items() if n.startswith(HEARD)}


def _check_trained(method: str, job: Job, received: Tensor, sent: Any) -> None:
    shape, shared = (1, len(received)), job.shared
    if not isinstance(shared, Tensor) or shared.shape != shape or shared.dtype != received.dtype:
        has = _form(shared)
        raise UserError(
            f"{method}.train leaves job.shared as {has}: change it in place, float32 {shape}"
        )
    if not isinstance(sent, Mapping):
        raise UserError(f"{method}.train returns {_form(sent)}: return a dict of tensors, or {{}}")
    for where, tensors in (("returns", sent), ("leaves job.private with", job.private)):
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor) or tensor.shape[:1] != (1,):
                raise UserError(
                    f"{method}.train {where} {name!r}: {_form(tensor)}: give a tensor "
                    "[clients, ...], here of one client"
                )


class _BroadcastError(Exception):
    """The local method asked for a tensor of the strategy's broadcast."""


class _Absent(dict[str, Tensor]):
    def __missing__(self, name: str) -> Tensor:
        raise _BroadcastError(name)


def _few(trainer: Trainer, place: int) -> Cohort:
    """Return a client's first examples, as many as a minibatch has."""
    problem, size = trainer.problem, trainer.config.local.batch_size
    at, one = np.array([place]), trainer.device

    class First:
        tasks = problem.data.tasks

        def client(self, index: int) -> Client:
            with limited(trainer.config.strategy.limit):
                data = load_client(problem.data, index)
            splits = (data.train, data.valid, data.test)
            return Client(*(part.take(torch.arange(min(size, len(part)))) for part in splits))

    first: Any = First()
    try:
        return _named(
            f"the data of client {place}",
            lambda: gather(first, problem.tasks, trainer.fit, at, at, [None], one),
        )
    except UserError as error:
        raise _DataError(str(error)) from error
    except LateError:
        limit = trainer.config.strategy.limit
        raise _DataError(
            f"the data of client {place} did not come within strategy.timeout = {limit:g} s"
        ) from None


def _check_tasks(trainer: Trainer, cohort: Cohort) -> set[str]:
    """Check outputs, losses and metrics; return what may be wrong with these, a line each."""
    doubts = set()
    train, names = cohort.client(0).train, [task.name for task in cohort.tasks]
    model = trainer.above
    tensors = [*model.named_parameters(), *model.named_buffers()]
    once = model.held_once
    x: Input = each(lambda tensor: tensor.to(trainer.device), loaded(train.x))
    state = {name: tensor.detach().clone() for name, tensor in tensors if name not in once}
    for name in trainer.trainable:
        state[name].requires_grad_()
    features = _named(
        "the model",
        lambda: holding(model, state, lambda: model.backbone(x)),
    )
    if not any(part.requires_grad for part in named(features).values()):
        raise UserError(
            "the backbone's features have no gradient: compute them by PyTorch's operations, "
            "without torch.no_grad() or detach()"
        )
    outputs = {}
    for name in names:
        head = partial(holding, model, state, partial(model.heads[name], features))
        outputs[name] = _named(f"the head of task {name!r}", head)
    for task in cohort.tasks:
        labels = train.y[task.name]
        _check_output(task, outputs[task.name], len(labels))
        _check_loss(task, outputs[task.name].detach().float(), labels)
        for metric in task.metrics:
            doubt = _check_metric(task, metric, outputs[task.name].detach(), labels)
            doubts |= {doubt} if doubt else set()
    return doubts


def _check_output(task: Task, output: Any, count: int) -> None:
    shape = count, *task.output_shape
    fits = isinstance(output, Tensor) and output.ndim == len(shape)
    if not fits or any(
        want not in (None, has) for has, want in zip(output.shape, shape, strict=True)
    ):
        wanted = f"({', '.join('any' if want is None else str(want) for want in shape)})"
        raise UserError(
            f"the head of task {task.name!r} gives {_form(output)}, and the task needs {wanted}"
        )


def _check_loss(task: Task, output: Tensor, labels: Tensor) -> None:
    what = f"the loss of task {task.name!r}"
    found = _named(what, lambda: task.loss_fn(output.requires_grad_(), labels))
    if not isinstance(found, tuple) or len(found) != 2:
        raise UserError(
            f"{what} returns {_form(found)}: return every example's loss and whether its label is "
            f"known, two tensors of shape ({len(labels)},)"
        )
    for part, name in zip(found, ("the losses", "what is known"), strict=True):
        if not isinstance(part, Tensor) or part.shape != (len(labels),):
            raise UserError(f"{what}: {name} are {_form(part)}, not of shape ({len(labels)},)")
    losses, known = found
    if not losses.requires_grad and bool(known.any()):
        raise UserError(
            f"{what} has no gradient: compute it from the output by PyTorch's operations, without "
            "detach(), argmax or NumPy"
        )
    own, finite = losses.detach()[known.bool()], _is_finite(output.detach())
    if bool(own[finite[known.bool()]].isnan().any()):
        raise UserError(f"{what} is undefined (NaN) with the first weights: see what it divides by")
    loss = task.loss_fn
    if isinstance(loss, TaskLoss) and type(loss).summed is not TaskLoss.summed:
        total, count = _named(what, partial(loss.summed, output, labels))
        _check_sum(what, float(total.detach()), int(count), own)


def _check_sum(what: str, total: float, count: int, losses: Tensor) -> None:
    """Make sure that a loss's own way to sum gives the sum of its losses ``[known]``."""
    wanted = float(losses.sum())
    near = math.isclose(total, wanted, rel_tol=1e-3, abs_tol=1e-4 * len(losses))
    if count != len(losses) or (math.isfinite(wanted) and not near):
        raise UserError(
            f"{what}: summed returns {total:.6g} of {count} examples, and the losses of those with "
            f"a label add up to {wanted:.6g} of {len(losses)}"
        )


def _check_metric(task: Task, metric: Metric, output: Tensor, labels: Tensor) -> str | None:
    what = f"the metric {metric.name!r} of task {task.name!r}"
    padded = torch.cat([labels, task.missing(1).to(labels.device)])
    more = torch.cat([output, output[:1]])
    found = _named(what, lambda: metric.statistics(output, labels))
    # Batches of other lengths, and padding, whose labels are missing.
    longer = _named(f"{what}, beside a missing label,", lambda: metric.statistics(more, padded))
    for one, count in ((found, len(labels)), (longer, len(padded))):
        if not isinstance(one, Tensor) or one.ndim != 2 or len(one) != count:
            raise UserError(f"{what}: its statistics are {_form(one)}, not of shape ({count}, k)")
    if found.shape[1] != longer.shape[1]:
        raise UserError(
            f"{what}: of {len(labels)} examples it has {found.shape[1]} statistics each, and of "
            f"{len(padded)} it has {longer.shape[1]}: let their number be the same"
        )
    fine = is_known(labels) & _is_finite(output)
    if not bool(found[fine].isfinite().all()):
        raise UserError(f"{what}: its statistics are not finite with the first weights")
    value = _named(what, lambda: metric.value(found.double().sum(0)))
    if not isinstance(value, (int, float)):
        raise UserError(f"{what}: its value is {type(value).__name__}, not a number")
    # Some are undefined of labels that are all alike; ours say where they are.
    several = len(labels[fine].unique(dim=0)) > 1
    own = not str(getattr(metric.value, "__module__", "")).startswith("fedjoint.")
    if math.isnan(value) and several and own:
        return (
            f"{what}: its value is not a number (NaN) of {int(fine.sum())} labelled examples with "
            "finite statistics; where that stays so, its cells in tables are empty"
        )
    return None


def _is_finite(output: Tensor) -> Tensor:
    """``[n]`` bool, where an output is finite; else the model is at fault."""
    return output.flatten(1).isfinite().all(1)


def _form(found: Any) -> Any:
    """Return the shape of a tensor, or what it is in place of one."""
    return tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__


def _named(what: str, act: Callable[[], T]) -> T:
    """Return what ``act`` returns; say what it was where the user's own code fails.

    Raises:
        UserError: it fails.
    """
    try:
        return act()
    except (UserError, _BroadcastError):
        raise
    except ANYTHING as error:  # the user's own code may raise anything
        raise UserError(f"{what} fails: {said(error)}") from error
