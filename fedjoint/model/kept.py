"""A backbone whose frozen modules give what they made before, in place of computing it again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedjoint.model.tree import Input, first, like, named

#: Before the name of a module, in inputs: what that module made.
_KEPT = "kept "


def key(module: str) -> str:
    """Return the name, in an input, of what the module of that name made."""
    return _KEPT + module


class _Pass:
    """What a backbone is given at a pass, for those that stand where modules were.

    Attributes:
        x: the input; empty between passes.
    """

    def __init__(self) -> None:
        self.x: dict[str, Tensor] = {}

    def part(self, name: str, alike: Tensor) -> Tensor:
        """Return a part of the input; where that is left out, NaN: who reads it will notice.

        Args:
            name: of the part.
            alike: ``[0, ...]``, of its shape and type.
        """
        if name in self.x:
            return self.x[name]
        some = first(self.x)
        nothing = some.new_full((), torch.nan, dtype=alike.dtype)
        return nothing.expand(len(some), *alike.shape[1:])


class _Kept(nn.Module):
    """Stands where a frozen module was, and returns what that made of the examples.

    Its attributes are that module's, as a model may ask a layer for its weights' type.

    Args:
        name: of the module that was there.
        module: that module.
        made: ``[n, ...]`` floating-point, what it made of some examples.
        now: the pass.
    """

    def __init__(self, name: str, module: nn.Module, made: Tensor, now: _Pass) -> None:
        super().__init__()
        self._name, self._alike, self._now = key(name), made[:0], now
        self.__dict__["_instead_of"] = module  # not as a part of this

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # how it is copied is its own affair
            raise AttributeError(name)
        return getattr(self.__dict__["_instead_of"], name)

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self._now.part(self._name, self._alike)


class _Begin:
    """Gives a backbone, before a pass, the input that it reads itself.

    Args:
        example: ``[n, ...]``, as the whole backbone takes inputs.
        now: the pass.
    """

    def __init__(self, example: Input, now: _Pass) -> None:
        self._example: Input = example
        self._now = now

    def __call__(self, module: nn.Module, args: tuple[dict[str, Tensor]]) -> tuple[Input]:
        (self._now.x,) = args
        parts = {n: self._now.part(n, part[:0]) for n, part in named(self._example).items()}
        return (like(parts, self._example),)


class _End:
    """Forgets what was given at a pass.

    Args:
        now: the pass.
    """

    def __init__(self, now: _Pass) -> None:
        self._now = now

    def __call__(self, *_: Any) -> None:
        self._now.x = {}


def without(body: nn.Module, made: Mapping[str, Tensor], example: Input) -> nn.Module:
    """Return ``body`` with what some of its modules make as parts of its input.

    Its input is a dict: :func:`key` of a module -> what that made, and the parts of the input of
    ``body`` by name. What nothing reads may be left out.

    Args:
        body: stays as it is; both share all other modules.
        made: module -> ``[n, ...]`` what it makes of some examples.
        example: ``[n, ...]`` inputs of ``body``.
    """
    now = _Pass()
    instead = {n: _Kept(n, body.get_submodule(n), part, now) for n, part in made.items()}
    above = _rebuilt(body, "", instead)
    above.register_forward_pre_hook(_Begin(example, now), prepend=True)
    above.register_forward_hook(_End(now), always_call=True)
    return above


def _rebuilt(module: nn.Module, name: str, instead: Mapping[str, nn.Module]) -> nn.Module:
    """Return a copy of a module with others inside; what lies beside these is shared."""
    if name in instead:
        return instead[name]
    prefix = f"{name}." if name else ""
    if not any(other.startswith(prefix) for other in instead):
        return module
    own = copy.copy(module)
    for held in (
        "_modules",
        "_forward_pre_hooks",
        "_forward_hooks",
        "_forward_hooks_always_called",
    ):
        own.__dict__[held] = module.__dict__[held].copy()
    for child, inner in module._modules.items():
        if inner is not None:
            own._modules[child] = _rebuilt(inner, prefix + child, instead)
    return own
