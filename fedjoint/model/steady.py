"""What modules of a backbone make of examples, and which of it is the same at every pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedjoint.model.mode import evaluating
from fedjoint.model.tree import Input, count, each

#: name of a module -> ``[n, ...]`` what it made
Made = dict[str, Tensor]


def steady(body: nn.Module, names: Collection[str], x: Input) -> Made:
    """Return what modules make of examples that depends on nothing else.

    It has no gradient, and is the same in training mode as of each example by itself in evaluation
    mode. It is a tensor that nothing changes afterwards, and the module is called once in a pass.
    Of modules within one another, only the outermost are returned.

    Args:
        body: is in training mode.
        names: of the modules.
        x: ``[n, ...]`` examples.
    """
    whole = _results(body, names, x)
    with evaluating(body), torch.no_grad():
        singles = [
            _results(body, whole, each(lambda part, at=at: part[at : at + 1], x))
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


class _Heard:
    """What a module returned, and which version of it."""

    def __init__(self, result: Any) -> None:
        self.result, self._version = result, getattr(result, "_version", None)

    def keepable(self, rows: int) -> bool:
        """Return whether it is a tensor of ``rows`` examples that nothing has changed since."""
        made = self.result
        if not isinstance(made, Tensor) or not made.ndim or len(made) != rows:
            return False
        unchanged = made._version == self._version
        return made.is_floating_point() and not made.requires_grad and unchanged


def _results(body: nn.Module, names: Collection[str], x: Input) -> Made:
    heard: dict[str, list[_Heard]] = {name: [] for name in names}
    with listening(body, names, lambda name, result: heard[name].append(_Heard(result))):
        body(x)
    return {
        name: results[0].result
        for name, results in heard.items()
        if len(results) == 1 and results[0].keepable(count(x))
    }


def _outermost(made: Mapping[str, Tensor]) -> Made:
    return {
        name: result
        for name, result in made.items()
        if not any(other != name and (not other or name.startswith(f"{other}.")) for other in made)
    }
