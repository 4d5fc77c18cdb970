"""What lies below all that trains: what it makes of an example stays, and is computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedjoint.errors import ANYTHING, UserError
from fedjoint.model.joint import JointModel
from fedjoint.model.kept import key, without
from fedjoint.model.mode import evaluating
from fedjoint.model.products import Products
from fedjoint.model.steady import Made, close, listening, steady
from fedjoint.model.stream import Stream, passes
from fedjoint.model.tree import Input, cat, count, each, named, nbytes

#: Bytes that are kept of an example, at most: more would soon be forgotten again.
_MOST = 1 << 18

#: Of a pass's operations, the share that must be saved.
_LEAST = 0.1


class Front:
    """Computes what lies below all that trains.

    Args:
        body: the backbone.
        kept: its modules whose results are kept.
        made: ``[n, ...]``, what this returns of some examples: the results of these modules, and
            the parts of the input that are read above them as well.

    Attributes:
        nbytes: of what is kept of an example.
    """

    def __init__(self, body: nn.Module, kept: Collection[str], made: dict[str, Tensor]) -> None:
        self._body, self._kept = body, kept
        self._none = {name: part[:0] for name, part in made.items()}
        self.nbytes = nbytes(made) // count(made)

    @torch.no_grad()
    def __call__(self, x: Input | Stream) -> Input:
        """Return what the model above takes, ``[n, ...]`` on the device, of ``n`` examples.

        Raises:
            UserError: not all of these modules are called.
        """
        device = next(self._body.parameters()).device
        with evaluating(self._body):
            made = [self._of(each(partial(_copy, device=device), some)) for some in passes(x)]
        return cat([self._none, *made])

    def _of(self, x: Input) -> Input:
        found: Made = {}

        def hear(name: str, result: Any) -> None:
            found[name] = result
            if len(found) == len(self._kept):
                raise _EnoughError

        with listening(self._body, self._kept, hear), suppress(_EnoughError):
            self._body(x)
        for name in self._kept:
            if name not in found:
                raise UserError(
                    f"the backbone calls its frozen layer {name!r} of some inputs and not of "
                    "others: call the same layers at every pass"
                )
        given = _given(x, found)
        return {name: given[name] for name in self._none}


def _copy(part: Tensor, device: torch.device) -> Tensor:
    return part.to(device, copy=True)  # which the backbone may change in place


class _EnoughError(Exception):
    """All that is kept has been made."""


def divided(model: JointModel, examples: Callable[[], Input]) -> tuple[Front | None, JointModel]:
    """Return what can be computed once for each example, and the model above it.

    These are the modules of the backbone in whose results nothing that trains has a part, and that
    make the same of an example in training as in evaluation, whatever is beside it: no dropout, no
    BatchNorm that moves (:func:`fedjoint.model.steady.steady`). Kept are the results that are read
    by what is none of these modules, of 256 KiB of an example at most, where that saves a tenth of
    a pass's operations.

    Args:
        model: both share its modules.
        examples: returns inputs to try it on.

    Returns:
        None and ``model`` where there are no such modules.
    """
    body = model.backbone
    still = [name for name, module in body.named_modules() if _stays(model, name, module)]
    if not any(True for name in still for _ in body.get_submodule(name).parameters()):
        return None, model
    x = examples()
    try:
        with torch.enable_grad():
            found = _found(body, still, x)
    except ANYTHING:  # of the model, said where it is tried
        found = None
    if found is None:
        return None, model
    front, above = found
    own = copy.copy(model)
    own.__dict__["_modules"] = {**model._modules, "backbone": above}
    return front, own


def _stays(model: JointModel, name: str, module: nn.Module) -> bool:
    """Return whether nothing in a module of the backbone trains, or moves."""
    prefix = f"backbone.{name}." if name else "backbone."
    return all(prefix + n in model.held_once for n in module.state_dict())


def _found(body: nn.Module, still: Collection[str], x: Input) -> tuple[Front, nn.Module] | None:
    """Return what is computed once, and the backbone above it; None where nothing is.

    Args:
        body: the backbone, in training mode.
        still: modules in which nothing trains.
        x: ``[n, ...]`` a few examples.
    """
    own = {id(parameter): parameter for parameter in body.parameters()}
    trial = copy.deepcopy(body, own)  # a copy of the buffers alone, which a pass may change
    made = steady(trial, still, x)
    if not made:
        return None
    above, given = without(trial, made, x), _given(x, made)
    read = _read(above, given)
    kept = [name for name in made if key(name) in read]
    given = {name: part.clone() for name, part in given.items() if name in read}
    if not kept or nbytes(given) > _MOST * count(x):
        return None
    with Products() as whole:
        wanted = _evaluated(trial, x)
    with Products() as rest, evaluating(above), torch.no_grad():
        found = dict(named(above(given)))
    pays = rest.operations <= (1 - _LEAST) * whole.operations
    changes = any(part._version for part in given.values())
    if not pays or changes or not _close(found, wanted):
        return None
    return Front(body, kept, given), without(body, made, x)


def _given(x: Input, made: Made) -> dict[str, Tensor]:
    """Return the input of a backbone without the modules that ``made`` is of."""
    return {**named(x), **{key(name): part for name, part in made.items()}}


def _read(above: nn.Module, given: dict[str, Tensor]) -> set[str]:
    """Return the names of the parts of an input on which what a backbone returns depends.

    Args:
        above: a backbone :func:`without` some of its modules.
        given: ``[n, ...]`` all parts.
    """
    own = {
        n: p.detach().clone().requires_grad_() for n, p in given.items() if p.is_floating_point()
    }
    returned = [p for p in named(above({**given, **own})).values() if p.requires_grad]
    gradients = torch.autograd.grad(
        [part.sum() for part in returned], list(own.values()), allow_unused=True
    )
    read = given.keys() - {n for n, g in zip(own, gradients, strict=True) if g is None}
    wanted = _evaluated(above, given)
    for name in given.keys() - read:  # what has no gradient may be read all the same
        others = {n: part for n, part in given.items() if n != name}
        if not others or not _close(_evaluated(above, others), wanted):
            read.add(name)
    return read


@torch.no_grad()
def _evaluated(body: nn.Module, x: Input) -> dict[str, Tensor]:
    with evaluating(body):
        return dict(named(body(each(lambda part: part.clone(), x))))


def _close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return all(close(found[name], part) for name, part in wanted.items())
