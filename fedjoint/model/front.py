"""The first parts of a backbone, where they do not train: what they make of an example stays."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import nn

from fedjoint.errors import ANYTHING
from fedjoint.model.joint import JointModel
from fedjoint.model.mode import evaluating
from fedjoint.model.stream import Stream, passes
from fedjoint.model.tree import Input, cat, count, each, named, nbytes

#: Bytes that a front may make of an example: more cost more memory than they save time.
_MOST = 1 << 16


class Front:
    """Computes what lies below all that trains.

    Args:
        body: the first parts of a backbone.
        made: ``[n, ...]``, what it makes of some examples.
    """

    def __init__(self, body: nn.Module, made: Input) -> None:
        self._body = body
        self._none: Input = each(lambda part: part[:0], made)

    @torch.no_grad()
    def __call__(self, x: Input | Stream) -> Input:
        """Return what the parts above take, ``[n, ...]`` on the device, of ``n`` examples."""
        device = next(self._body.parameters()).device
        with evaluating(self._body):
            made = [self._body(each(lambda part: part.to(device), some)) for some in passes(x)]
        return cat([self._none, *made])


def divided(model: JointModel, examples: Callable[[], Input]) -> tuple[Front | None, JointModel]:
    """Return what can be computed once for each example, and the model above it.

    Where the backbone is an ``nn.Sequential``, these are as many of its first parts as do not
    train, and make the same of an example in training as in evaluation, whatever is beside it: no
    dropout, no BatchNorm. They have parameters, and make 64 KiB of an example at most.

    Args:
        model: both share its modules.
        examples: returns inputs to try it on.

    Returns:
        None and ``model`` where there are no such parts.
    """
    cuts = list(_cuts(model))
    x = examples() if cuts else {}
    for body, above in cuts:
        if (made := _made(body, x)) is not None:
            own = copy.copy(model)
            own.__dict__["_modules"] = {**model._modules, "backbone": above}
            return Front(body, made), own
    return None, model


def _cuts(model: JointModel) -> Iterator[tuple[nn.Sequential, nn.Sequential]]:
    """Yield the frozen beginnings of a backbone and the rest of it, the longest first."""
    body = model.backbone
    if type(body) is not nn.Sequential:
        return
    parts = list(body.named_children())
    for length in range(len(parts) - 1, 0, -1):
        front, above = _sequence(parts[:length]), _sequence(parts[length:])
        names = {f"backbone.{name}" for name in front.state_dict()}
        if names <= model.held_once and any(True for _ in front.parameters()):
            yield front, above


def _sequence(parts: list[tuple[str, nn.Module]]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


@torch.no_grad()
def _made(body: nn.Module, x: Input) -> Input | None:
    """Return what ``body`` makes of examples; None where that depends on its mode or the others."""
    try:
        made: Input = body(x)
        with evaluating(body):
            rows = range(count(x))
            single = [body(each(lambda part, at=at: part[at : at + 1], x)) for at in rows]
        others = named(cat(single))
        same = all(
            torch.allclose(part, others[name], rtol=1e-4, atol=1e-5)
            for name, part in named(made).items()
        )
        return made if same and nbytes(made) <= _MOST * count(x) else None
    except ANYTHING:  # of the model, said where it is tried
        return None
