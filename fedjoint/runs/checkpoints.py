"""A run after some round: what a resume needs beside the clients' state."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.frozen import digest
from fedjoint.model.layout import Layout
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.seal import check_owner
from fedjoint.runs.tensors import DamagedError, pack, unpack

_SCHEMA = "4"
_PARTS = ("backbone", "state", "ledger", "frozen", "backbones")


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``round`` rounds.

    Attributes:
        round: rounds done.
        backbone: the shared tensors, float32.
        state: the strategy's state.
        ledger: which round of each client counts.
        digest: of what does not train of the backbone, see :mod:`fedjoint.model.frozen`.
        frozen: that itself, where it was kept: with the final backbone.
        backbones: where there are several, K > 1, the shared parameters, each ``[K, ...]``;
            ``backbone`` is then their weighted mean. Empty: there is one.
    """

    round: int
    backbone: dict[str, Tensor]
    state: dict[str, Tensor]
    ledger: Ledger
    digest: str = ""
    frozen: dict[str, Tensor] = field(default_factory=dict)
    backbones: dict[str, Tensor] = field(default_factory=dict)

    @property
    def whole(self) -> dict[str, Tensor]:
        """The backbone, and what does not train of it where that was kept."""
        return self.backbone | self.frozen

    def backbone_of(self, path: Path, number: int | None) -> dict[str, Tensor]:
        """Return one of several backbones, by name; of one, that.

        Args:
            path: of the run, for errors.
            number: which, from 0; None: the only one.

        Raises:
            UserError: there is none of that number, or there are several and none is named.
        """
        count = max(map(len, self.backbones.values()), default=1)
        if number is None and count > 1:
            raise UserError(
                f"{path}: the run has {count} backbones: choose one with --backbone, from 0 to "
                f"{count - 1}; fedjoint export tells which one most clients with a task have"
            )
        if number is not None and not 0 <= number < count:
            raise UserError(
                f"--backbone {number}: the run has {count}, from 0 to {count - 1}"
                if count > 1
                else "the run has one backbone: leave --backbone out"
            )
        return self.backbone | {n: t[number or 0] for n, t in self.backbones.items()}

    def fits(self, layout: Layout) -> bool:
        """Say whether the backbone is one of this layout, with finite parameters."""
        return {n: tuple(t.shape) for n, t in self.backbone.items()} == layout.shapes and all(
            self.backbone[name].isfinite().all() for name in layout.parameters.shapes
        )


def pack_checkpoint(run: str, checkpoint: Checkpoint) -> bytes:
    """Return ``checkpoint`` as safetensors of the run with the id ``run``."""
    tensors = {f"backbone/{n}": t for n, t in checkpoint.backbone.items()}
    tensors |= {f"state/{n}": t for n, t in checkpoint.state.items()}
    tensors |= {f"ledger/{n}": t for n, t in checkpoint.ledger.tensors().items()}
    tensors |= {f"frozen/{n}": t for n, t in checkpoint.frozen.items()}
    tensors |= {f"backbones/{n}": t for n, t in checkpoint.backbones.items()}
    about = {"run": run, "round": str(checkpoint.round), "schema": _SCHEMA}
    return pack(tensors, about | ({"frozen": checkpoint.digest} if checkpoint.digest else {}))


def load_checkpoint(path: Path, run: str) -> Checkpoint:
    """Return the checkpoint in ``path``, which has to be of the run with the id ``run``.

    Raises:
        DamagedError: it is not what was written.
        UserError: it is of another run.
        OSError: it cannot be read.
    """
    tensors, metadata = unpack(path.read_bytes())
    if metadata.get("schema") != _SCHEMA:
        raise DamagedError(f"schema {metadata.get('schema')!r}, expected {_SCHEMA!r}")
    check_owner(path, metadata.get("run"), run)
    parts: dict[str, dict[str, Tensor]] = {n: {} for n in _PARTS}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    for name, tensor in parts["backbone"].items():
        if tensor.dtype != torch.float32 or tensor.isnan().any():
            raise DamagedError(f"{name!r} of its backbone is {tensor.dtype}, or not a number")
    round, frozen = int(metadata["round"]), parts["frozen"]
    ledger, said = _ledger(parts["ledger"], round), metadata.get("frozen", "")
    if frozen and digest(frozen) != said:
        raise DamagedError("its frozen tensors are not those that it says it has")
    for name, own in parts["backbones"].items():
        if own.dtype != torch.float32 or not own.isfinite().all() or own.shape[:1] < (2,):
            raise DamagedError(f"{name!r} of its backbones is not several of finite float32")
        if own.shape[1:] != parts["backbone"].get(name, own).shape:
            raise DamagedError(f"{name!r} of its backbones has another shape than in their mean")
    return Checkpoint(
        round, parts["backbone"], parts["state"], ledger, said, frozen, parts["backbones"]
    )


def _ledger(tensors: dict[str, Tensor], round: int) -> Ledger:
    if tensors.keys() != Ledger().tensors().keys():
        raise DamagedError("it says not which round of each client counts")
    clients, rounds = tensors["clients"], tensors["rounds"]
    sound = clients.dtype == rounds.dtype == torch.int64
    sound &= clients.shape == rounds.shape == tensors["losses"].shape
    if not sound or not (clients.diff() > 0).all() or not ((rounds > 0) & (rounds <= round)).all():
        raise DamagedError("it counts rounds of clients that there cannot be")
    return Ledger.from_tensors(tensors)
