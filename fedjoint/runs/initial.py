"""The weights that a backbone begins with, from a run or a file."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
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


class UnfitError(UserError):
    """Weights are not of this backbone.

    Attributes:
        why: the line, without the setting ``model.initial`` that it begins with.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"model.initial: {why}")
        self.why = why


log = logging.getLogger(__name__)

_OWN = "backbone."  # begins the names of a joint model's shared tensors

#: What fedjoint's backbones and peft put around the names of a model's tensors.
_AROUND = re.compile(r"^(backbone\.)?(body\.)?(base_model\.model\.)?|\.(base_layer|default)(?=\.)")

#: What a folder has that fedjoint export, peft or transformers wrote; an adapter is of its base.
_FILES = ("adapter_model.safetensors", "model.safetensors")


def read_initial(path: Path) -> dict[str, Tensor]:
    """Return the tensors in ``path``, by name.

    Args:
        path: a run directory, of which the newest backbone is taken, a safetensors file, or a
            folder of a model with one.

    Raises:
        UserError: it is neither.
    """
    path = _file_in(path)
    if path.is_dir():
        newest = _newest(path)
        if newest.backbones:
            raise UserError(
                f"model.initial: {path}: the run has several backbones: export one, with "
                "fedjoint export --backbone, and give its folder"
            )
        return newest.whole
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise UserError(f"model.initial: {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UserError(
            f"model.initial: {path} is no safetensors file ({error}); write a state_dict with "
            "safetensors.torch.save_file"
        ) from None


def _file_in(path: Path) -> Path:
    """Return the file of weights in a model's folder; anything else as it is."""
    return next((path / name for name in _FILES if (path / name).is_file()), path)


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

    Names may be those of the backbone itself (its ``state_dict``), those of a run, those of a
    model that it is part of, and with adapters those that peft has.

    Args:
        path: where they are from.
        tensors: name -> tensor.
        layout: of the backbone's shared tensors.

    Raises:
        UserError: a tensor is missing, of another shape, or not finite.
    """
    chosen: dict[str, Tensor] = {}
    found = _of_backbone(tensors, layout.shapes)
    for name, shape in layout.shapes.items():
        tensor = found.get(name)
        if tensor is None:
            raise UnfitError(
                f"{path} has no {name.removeprefix(_OWN)!r}; it has "
                f"{', '.join(sorted(tensors)[:4])} and so on: give weights of this backbone"
            )
        if tuple(tensor.shape) != shape:
            raise UnfitError(
                f"{name!r} is {tuple(tensor.shape)} in {path}, and {shape} here: "
                "give weights of this backbone"
            )
        if name not in layout.buffers and not torch.isfinite(tensor).all():
            raise UnfitError(f"{name!r} in {path} is not finite")
        chosen[name] = tensor.to(torch.float32)
    rest = len(tensors) - len(found)
    if rest:
        log.info("model.initial: %d of %d tensors are not used", rest, len(tensors))
    return chosen


def fit_unshared(
    path: Path, frozen: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors in ``path`` with which what is not shared of a backbone begins.

    They never travel, so every machine reads them for itself. What a file lacks whole, as that of
    an adapter lacks the model below it, stays as it is.

    Args:
        path: as in :func:`read_initial`.
        frozen: name -> tensor, what does not train, as the backbone was built.
        kept: the same of what trains and is each client's own.

    Raises:
        UserError: it cannot be read, or does not fit.
    """
    newest = _newest(path) if _file_in(path).is_dir() else None
    if newest and not newest.frozen and newest.digest != digest(frozen):
        raise UnfitError(
            f"{path} has other frozen weights than this backbone, and keeps them "
            "with its final backbone alone: resume it to its end first"
        )
    tensors = newest.whole if newest else read_initial(path)
    return _all_or_none(path, tensors, frozen) | _all_or_none(path, tensors, kept)


def _all_or_none(
    path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    taken = _of_backbone(tensors, wanted)
    for name, tensor in wanted.items():
        has = taken.get(name)
        if has is None and taken and tensor.is_floating_point():
            raise UnfitError(
                f"{path} has no {name.removeprefix(_OWN)!r}, and has "
                f"{next(iter(taken)).removeprefix(_OWN)!r}: give weights of this backbone"
            )
        if has is not None and has.shape != tensor.shape:
            raise UnfitError(
                f"{name!r} is {tuple(has.shape)} in {path}, and "
                f"{tuple(tensor.shape)} here: give weights of this backbone"
            )
        if has is not None and not has.isfinite().all():
            raise UnfitError(f"{name!r} in {path} is not finite")
    return taken


def _of_backbone(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Return those of ``tensors`` that are ``wanted``, by the names there.

    Where the backbone is part of a larger model, their names begin with that of the part: it is
    the one of which most are there. Of two alike, as in a pair of encoders, it is neither.
    """
    exact = {n: tensors.get(n, tensors.get(n.removeprefix(_OWN))) for n in wanted}
    found = {name: tensor for name, tensor in exact.items() if tensor is not None}
    if len(found) == len(wanted):
        return found
    plain = {_AROUND.sub("", name): tensor for name, tensor in tensors.items()}
    own = {name: _AROUND.sub("", name) for name in wanted}
    starts = {n.removesuffix(end) for end in own.values() for n in plain if n.endswith(f".{end}")}
    ways = [
        {name: plain[start + end] for name, end in own.items() if start + end in plain}
        for start in ("", *sorted(starts))
    ]
    best = max(ways, key=len)
    alike = best is not ways[0] and [len(way) for way in ways].count(len(best)) > 1
    return found if alike else best | found
