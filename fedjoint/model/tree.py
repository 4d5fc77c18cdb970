"""An input of a model: a tensor, or a flat dict of named tensors. Only this file tells them apart.

A dict holds what belongs to one example: token ids and their mask, or two modalities. The backbone
gets it as its one argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedjoint.errors import UserError

#: ``[n, ...]``, or name -> ``[n, ...]``
Input = Tensor | dict[str, Tensor]


def each(act: Callable[..., Any], first: Any, *more: Any) -> Any:
    """Return ``act`` of what has one name, for every name; the names are those of ``first``.

    Args:
        act: takes as many tensors as inputs are given.
        first: an input, or what stands for one, such as a description of it.
        more: others, with the same names.
    """
    if not isinstance(first, dict):
        return act(first, *more)
    return {name: act(part, *(other[name] for other in more)) for name, part in first.items()}


def named(x: Input) -> dict[str, Tensor]:
    """Return the tensors by name; one on its own has the name ``""``."""
    return x if isinstance(x, dict) else {"": x}


def first(x: Input) -> Tensor:
    """Return one of the tensors: all have as many examples, on one device."""
    return next(iter(named(x).values()))


def like(parts: dict[str, Tensor], x: Input) -> Input:
    """Return tensors by name, as :func:`named` has them, in the form of ``x``."""
    return parts if isinstance(x, dict) else parts[""]


def alone(x: Any) -> Any:
    """Return what the only client has, of tensors or of named ones stacked over clients."""
    return each(lambda stacked: stacked[0], x)


def count(x: Input) -> int:
    """Return the number of examples."""
    return len(first(x))


def cat(parts: Sequence[Input]) -> Input:
    """Return the examples of all ``parts``, one below the other."""
    joined: Input = each(lambda *tensors: torch.cat(tensors), *parts)
    return joined


def nbytes(x: Input) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in named(x).values())


def form(x: Input) -> str:
    """Return the type and the shape of an example, in words; ``x`` is ``[n, ...]``."""
    parts = {
        name: f"{tuple(t.shape[1:])} {str(t.dtype).removeprefix('torch.')}"
        for name, t in named(x).items()
    }
    return parts[""] if isinstance(x, Tensor) else f"a dict of {_listed(parts)}"


def check_tree(x: Any, who: str) -> None:
    """Make sure that ``x`` is a tensor, or a dict of tensors, of as many examples each.

    Args:
        x: ``[n, ...]`` or name -> ``[n, ...]``, if it is as it should be.
        who: whose inputs it is, for the message.

    Raises:
        UserError: it is not.
    """
    if isinstance(x, dict) and not x:
        raise UserError(f"{who} are an empty dict: give a tensor, or a dict of named tensors")
    for name, part in x.items() if isinstance(x, dict) else [("", x)]:
        if not isinstance(name, str) or not (name.isprintable() and (name or part is x)):
            raise UserError(f"{who} have the key {name!r}: name tensors by words")
        what = f"{who}, {name!r}," if part is not x else who
        if not isinstance(part, Tensor):
            raise UserError(
                f"{what} are {kind_of(part)}: give tensors (torch.from_numpy, torch.tensor), or a "
                "flat dict of them"
            )
        if not part.ndim:
            raise UserError(f"{what} are a single number: give one row for each example")
    lengths = {name: len(part) for name, part in named(x).items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{who} differ in the number of examples: {_listed(lengths)}")


def fitted(x: Input, example: Input, who: str) -> Input:
    """Return inputs with their names in the order of the example's.

    Args:
        x: ``[n, ...]``, as :func:`check_tree` lets pass.
        example: ``[1, ...]``, what they must be like.
        who: whose they are, for the message.

    Raises:
        UserError: they are not what the model takes, or not finite.
    """
    found, wanted = named(x), named(example)
    if found.keys() != wanted.keys():
        raise UserError(
            f"{who} are {form(x)}, and the model takes {form(example)}: {_difference(x, example)}"
        )
    for name, like in wanted.items():
        part, what = found[name], f"{who}, {name!r}," if name else who
        if part.dtype != like.dtype or part.shape[1:] != like.shape[1:]:
            raise UserError(
                f"{what} are {part.dtype} {list(part.shape[1:])}, and the model takes "
                f"{like.dtype} {list(like.shape[1:])}: give every client inputs of one type and "
                "shape"
            )
        if not len(part) or not part.is_floating_point():
            continue
        if not (finite := part.flatten(1).isfinite().all(1)).all():
            at = int(finite.int().argmin())
            raise UserError(f"{what.rstrip(',')}: example {at} is not finite; clean its data")
    ordered: Input = each(lambda like, own: own, example, x)
    return ordered


def kind_of(value: Any) -> str:
    """Return in words of which type ``value`` is."""
    return f"of type {type(value).__module__}.{type(value).__name__}".replace("builtins.", "")


def _difference(x: Input, example: Input) -> str:
    if isinstance(x, Tensor) or isinstance(example, Tensor):
        return "give every client the same kind"
    missing = [repr(name) for name in example if name not in x]
    surplus = [repr(name) for name in x if name not in example]
    words = [f"add {', '.join(missing)}"] if missing else []
    return ", and ".join(words + ([f"leave out {', '.join(surplus)}"] if surplus else []))


def _listed(parts: dict[str, Any]) -> str:
    return ", ".join(f"{name!r} {value}" for name, value in parts.items())
