"""Compressed updates: what every way of compression shares, error feedback and its checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fedjoint.config.schema import CompressionConfig
from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.options import make_plugin

Payload = dict[str, Tensor]


class Compression(ABC):
    """Base class of the ways to compress updates. A plug-in implements all three methods.

    Options are the arguments of ``__init__``. What a payload leaves out of an update is added to
    the client's next one.

    Attributes:
        omits: in a few words, what of the paper that it is named after is left out.
    """

    omits: ClassVar[str] = ""

    @abstractmethod
    def compress(self, wanted: Tensor) -> Payload:
        """Return what clients send in place of their updates ``[clients, P]``.

        Returns:
            Tensors by name, ``[clients, ...]`` each.
        """

    @abstractmethod
    def expected(self, rows: int, size: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return the shape and the type of every part of a payload, by name.

        Args:
            rows: clients.
            size: P.
        """

    @abstractmethod
    def expand(self, payload: Mapping[str, Tensor], size: int) -> Tensor:
        """Return the ``[clients, P]`` float32 updates that a payload stands for.

        Args:
            payload: of the shapes and types that are expected.
            size: P.

        Raises:
            UserError: a number in it is out of range.
        """


def make_compression(config: CompressionConfig) -> Compression:
    """Return the compression that is named.

    Raises:
        UserError: there is none, an option is wrong, or it is no Compression.
    """
    return make_plugin("compressions", config.name, config.options, Compression)


def compress(
    update: Tensor, residual: Tensor, config: CompressionConfig
) -> tuple[Payload, Tensor, Tensor]:
    """Compress updates, feeding back what earlier rounds left out.

    Papers: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018,
    https://arxiv.org/abs/1809.07599; Karimireddy et al., "Error Feedback Fixes SignSGD", ICML
    2019, https://arxiv.org/abs/1901.09847

    Args:
        update: ``[clients, P]``.
        residual: ``[clients, P]`` what was not sent so far.
        config: how to compress.

    Returns:
        The payload to send (see :func:`decode`), the ``[clients, P]`` update that it stands
        for, and the new residual; sent plus residual is the update plus the old residual.
    """
    compression, wanted = make_compression(config), update + residual
    payload = compression.compress(wanted)
    sent = compression.expand(payload, wanted.shape[1])
    return payload, sent, wanted - sent


def decode(
    payload: Mapping[str, Tensor], rows: int, size: int, config: CompressionConfig
) -> Tensor:
    """Return the ``[rows, P]`` updates behind a payload, once it is as it was asked for.

    Args:
        payload: see :meth:`Compression.compress`.
        rows: clients.
        size: P.
        config: how it was to be compressed.

    Raises:
        UserError: a part is missing, of another shape or type, or not finite.
    """
    try:
        return _expand(make_compression(config), payload, rows, size)
    except UserError as error:
        raise UserError(
            f"compressed update: {error}; run one version of fedjoint on every machine"
        ) from None


def _expand(
    compression: Compression, payload: Mapping[str, Tensor], rows: int, size: int
) -> Tensor:
    for name, (shape, dtype) in compression.expected(rows, size).items():
        has = tuple(payload[name].shape) if name in payload else "no array"
        if has != shape:
            raise UserError(f"{name} is {has}, expected {shape}")
        if payload[name].dtype != dtype:
            raise UserError(f"{name} is of {payload[name].dtype}, expected {dtype}")
    updates = compression.expand(payload, size)
    if not updates.isfinite().all():
        raise UserError("a number is not finite")
    return updates


def try_compression(config: CompressionConfig, size: int) -> None:
    """Make sure that a compression expands what it compresses, on an update of ``size`` numbers.

    Raises:
        UserError: it does not; the line says what it returns instead.
    """
    what, compression = f"compression {config.name}", make_compression(config)
    update = torch.linspace(-1, 1, size)[None]
    try:
        payload = compression.compress(update.clone())
        tensors = isinstance(payload, dict) and all(isinstance(t, Tensor) for t in payload.values())
        if not tensors:
            raise UserError(f"compress returns {type(payload).__name__}, not a dict of tensors")
        sent = _expand(compression, payload, 1, size)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except ANYTHING as error:  # a plug-in may raise anything
        raise UserError(f"{what} fails: {said(error)}") from error
    if sent.shape != update.shape:
        raise UserError(
            f"{what}: expand returns {tuple(sent.shape)}, and the updates are {tuple(update.shape)}"
        )
