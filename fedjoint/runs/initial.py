"""The weights that a backbone begins with, from a run or a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.frozen import digest
from fedjoint.model.layout import Layout
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import check_whole

log = logging.getLogger(__name__)

_OWN = "backbone."  # begins the names of a joint model's shared tensors


def read_initial(path: Path) -> dict[str, Tensor]:
    """Return the tensors in ``path``, by name.

    Args:
        path: a run directory, of which the newest backbone is taken, or a safetensors file.

    Raises:
        UserError: it is neither.
    """
    if path.is_dir():
        return _newest(path).whole
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise UserError(f"model.initial: {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UserError(
            f"model.initial: {path} is no safetensors file ({error}); write a state_dict with "
            "safetensors.torch.save_file"
        ) from None


def _newest(path: Path) -> Checkpoint:
    try:
        newest = check_whole(RunDir.open(path), states=False).newest
    except UserError as error:
        raise UserError(f"model.initial: {error}") from None
    if newest is None:
        raise UserError(f"model.initial: {path}: the run has no checkpoint yet")
    return newest


def fit_initial(path: Path, tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return the tensors of a backbone, of those in ``path``; what else is there is left out.

    Names may be those of the backbone itself (its ``state_dict``) or those of a run.

    Args:
        path: where they are from.
        tensors: name -> tensor.
        layout: of the backbone's shared tensors.

    Raises:
        UserError: a tensor is missing, of another shape, or not finite.
    """
    chosen: dict[str, Tensor] = {}
    for name, shape in layout.shapes.items():
        tensor = tensors.get(name, tensors.get(name.removeprefix(_OWN)))
        if tensor is None:
            raise UserError(
                f"model.initial: {path} has no {name.removeprefix(_OWN)!r}; it has "
                f"{', '.join(sorted(tensors)[:4])} and so on: give weights of this backbone"
            )
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"model.initial: {name!r} is {tuple(tensor.shape)} in {path}, and {shape} here: "
                "give weights of this backbone"
            )
        if name not in layout.buffers and not torch.isfinite(tensor).all():
            raise UserError(f"model.initial: {name!r} in {path} is not finite")
        chosen[name] = tensor.to(torch.float32)
    rest = [n for n in tensors if n not in layout.shapes and _OWN + n not in layout.shapes]
    if rest:
        log.info("model.initial: %d of %d tensors are not used", len(rest), len(tensors))
    return chosen


def fit_unshared(
    path: Path, frozen: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors in ``path`` with which what is not shared of a backbone begins.

    They never travel, so every machine reads them for itself. What a file lacks whole, as that of
    an adapter lacks the model below it, stays as it is.

    Args:
        path: a run directory, or a safetensors file.
        frozen: name -> tensor, what does not train, as the backbone was built.
        kept: the same of what trains and is each client's own.

    Raises:
        UserError: it cannot be read, or does not fit.
    """
    newest = _newest(path) if path.is_dir() else None
    if newest and not newest.frozen and newest.digest != digest(frozen):
        raise UserError(
            f"model.initial: {path} has other frozen weights than this backbone, and keeps them "
            "with its final backbone alone: resume it to its end first"
        )
    tensors = newest.whole if newest else read_initial(path)
    return _all_or_none(path, tensors, frozen) | _all_or_none(path, tensors, kept)


def _all_or_none(
    path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    chosen = {n: tensors.get(n, tensors.get(n.removeprefix(_OWN))) for n in wanted}
    taken = {n: t for n, t in chosen.items() if t is not None}
    for name, tensor in wanted.items():
        has = taken.get(name)
        if has is None and taken and tensor.is_floating_point():
            raise UserError(
                f"model.initial: {path} has no {name.removeprefix(_OWN)!r}, and has "
                f"{next(iter(taken)).removeprefix(_OWN)!r}: give weights of this backbone"
            )
        if has is not None and has.shape != tensor.shape:
            raise UserError(
                f"model.initial: {name!r} is {tuple(has.shape)} in {path}, and "
                f"{tuple(tensor.shape)} here: give weights of this backbone"
            )
        if has is not None and not has.isfinite().all():
            raise UserError(f"model.initial: {name!r} in {path} is not finite")
    return taken
