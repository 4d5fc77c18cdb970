"""What modules of a backbone make of examples, and which of it is the same at every pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedjoint.model.dispatch import Mode
from fedjoint.model.mode import evaluating
from fedjoint.model.tree import Input, count, each

#: name of a module -> ``[n, ...]`` what it made
Made = dict[str, Tensor]


def steady(body: nn.Module, names: Collection[str], x: Input) -> Made:
    """Return what modules make of examples that depends on nothing else.

    It has no gradient, and is the same in training mode as of each example by itself in evaluation
    mode. It is a tensor that nothing changes afterwards, and the module is called once in a pass,
    in which it draws no random numbers. Of modules within one another, only the outermost are
    returned; of a body that decides by numbers, none, as another pass may call others.

    Args:
        body: is in training mode.
        names: of the modules.
        x: ``[n, ...]`` examples.
    """
    with _Watch() as watch:
        whole = _results(body, names, x, watch)
    if watch.decides:
        return {}
    with evaluating(body), torch.no_grad():
        singles = [
            _results(body, whole, each(lambda part, at=at: part[at : at + 1], x), watch)
            for at in range(count(x))
        ]
    known = [name for name in whole if all(name in single for single in singles)]
    alone = {name: torch.cat([single[name] for single in singles]) for name in known}
    return _outermost({name: whole[name] for name in known if close(whole[name], alone[name])})


@contextmanager
def listening(
    body: nn.Module, names: Collection[str], hear: Callable[[str, Any], None]
) -> Iterator[None]:
    """Have ``hear`` told, inside, what modules return."""
    with ExitStack() as hooks:
        for name in names:
            hook = partial(_tell, hear, name)
            handle = body.get_submodule(name).register_forward_hook(hook)
            hooks.callback(handle.remove)
        yield


def close(found: Tensor, wanted: Tensor) -> bool:
    """Return whether tensors are equal to the rounding of a model's operations."""
    return torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def _tell(hear: Callable[[str, Any], None], name: str, *call: Any) -> None:
    hear(name, call[-1])  # of a module, its arguments and its result


class _Watch(Mode):
    """Looks on at a pass.

    Attributes:
        draws: how many operations have drawn random numbers.
        decides: whether a number was read, as by a branch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws, self.decides = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.draws += torch.Tag.nondeterministic_seeded in func.tags
        self.decides |= func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class _Call:
    """A module's call, and what became of what it returned.

    Args:
        watch: looks on.
    """

    def __init__(self, watch: _Watch) -> None:
        self._watch, self._draws = watch, watch.draws
        self.result: Any = None

    def ends(self, result: Any) -> None:
        self.result, self._version = result, getattr(result, "_version", None)
        self._draws -= self._watch.draws

    def keepable(self, rows: int) -> bool:
        """Return whether it is a tensor of ``rows`` examples that nothing has changed since."""
        made = self.result
        if not isinstance(made, Tensor) or not made.ndim or len(made) != rows or self._draws:
            return False
        unchanged = made._version == self._version
        return made.is_floating_point() and not made.requires_grad and unchanged


def _results(body: nn.Module, names: Collection[str], x: Input, watch: _Watch) -> Made:
    calls: dict[str, list[_Call]] = {name: [] for name in names}
    with ExitStack() as hooks:
        for name, own in calls.items():
            begin = partial(_begin, own, watch)
            handle = body.get_submodule(name).register_forward_pre_hook(begin)
            hooks.callback(handle.remove)
        hooks.enter_context(listening(body, names, lambda n, result: calls[n][-1].ends(result)))
        body(each(lambda part: part.clone(), x))  # which it may change in place
    return {
        name: own[0].result
        for name, own in calls.items()
        if len(own) == 1 and own[0].keepable(count(x))
    }


def _begin(calls: list[_Call], watch: _Watch, *_: Any) -> None:
    calls.append(_Call(watch))


def _outermost(made: Mapping[str, Tensor]) -> Made:
    return {
        name: result
        for name, result in made.items()
        if not any(other != name and (not other or name.startswith(f"{other}.")) for other in made)
    }
