"""Images in files -> arrays of float32."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.memory import check_fits
from fedjoint._util.wording import first_line
from fedjoint.data.numbers import COARSE
from fedjoint.errors import UserError

#: of Pillow's kinds of image, those with one and with three channels of bytes
_GREY, _COLOUR = ("1", "L"), ("P", "RGB", "CMYK", "YCbCr")

_BYTES = 5  # of a pixel's channel: as it is read, and as float32


def scaled(array: np.ndarray, where: str) -> np.ndarray:
    """Return numbers as float32, bytes divided by 255.

    Args:
        array: ``[n, ...]``.
        where: it comes from, for errors.

    Raises:
        UserError: a number is not finite in float32; the line names its row, from 0.
    """
    if array.dtype == np.uint8:
        x = array.astype(np.float32)
        x /= 255
        return x
    with np.errstate(over="ignore"):
        x = array.astype(np.float32)
    finite = np.isfinite(x.reshape(len(x), -1)).all(1)
    if not finite.all():
        raise UserError(
            f"{where}: item {int(finite.argmin())} has a number that is not finite in float32; "
            "leave it out"
        )
    _refuse_coarse(array, x, where)
    return x


def _refuse_coarse(array: np.ndarray, x: np.ndarray, where: str) -> None:
    """Refuse numbers whose differences float32 cannot tell, such as epoch milliseconds."""
    if np.can_cast(array.dtype, np.float32):
        return
    exact = array.reshape(len(array), -1).astype(np.float64)
    with np.errstate(over="ignore"):
        moved, spread = np.abs(exact - x.reshape(exact.shape)).max(0), exact.std(0)
    coarse = moved > COARSE * spread
    if (coarse & (spread > 0)).any():
        number = exact[0, int(coarse.argmax())]
        raise UserError(
            f"{where}: float32 is too coarse for the differences of numbers such as {number:.17g}; "
            "subtract a constant from them (a date: seconds since the first)"
        )


def channels_first(x: Tensor) -> Tensor:
    """Return images ``[n, height, width]`` or ``[n, height, width, channels]``, channels first."""
    return x[:, None] if x.ndim == 3 else x.movedim(-1, 1).contiguous()


def decode(images: Sequence[Any], where: str) -> Tensor:
    """Decode image files into ``[n, channels, height, width]`` float32 in 0..1.

    Grey images have one channel, unless others are in colour: then all have three.

    Args:
        images: the bytes of a file each, or the hub's ``{"bytes": ...}`` of them.
        where: they come from, for errors.

    Raises:
        UserError: Pillow is not installed, or an image is missing, broken, transparent, of more
            than eight bits, or of another size than the first.
    """
    pillow = _pillow()
    opened = [_open(pillow, image, f"{where}: row {row}") for row, image in enumerate(images)]
    kind = "RGB" if any(image.mode in _COLOUR for image in opened) else "L"
    first = opened[0].size
    shape = (len(opened), first[1], first[0], *([3] if kind == "RGB" else []))
    check_fits(
        f"{where}: {shape[0]} images of {first[0]} x {first[1]}",
        _BYTES * float(math.prod(shape)),
        "make them smaller",
    )
    array = np.empty(shape, np.uint8)
    for row, image in enumerate(opened):
        if image.size != first:
            raise UserError(
                f"{where}: row {row} is an image of {image.size[0]} x {image.size[1]}, the first "
                f"of {first[0]} x {first[1]}; resize them alike"
            )
        array[row] = _loaded(image, f"{where}: row {row}").convert(kind)
        image.close()
    # As bytes, which take a quarter of the memory.
    return torch.from_numpy(scaled(channels_first(torch.from_numpy(array)).numpy(), where))


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("images need Pillow; pip install 'fedjoint[images]'") from None
    return Image


def _open(pillow: ModuleType, image: Any, where: str) -> Any:
    """Read the head of an image file."""
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise UserError(f"{where} has no image; give the bytes of an image file in every row")
    try:
        opened = pillow.open(io.BytesIO(content))
    except Exception as error:  # a broken file may raise anything
        raise _broken(where, error) from None
    if opened.mode not in (*_GREY, *_COLOUR) or "transparency" in opened.info:
        raise UserError(
            f"{where} is an image of Pillow's mode {opened.mode}, maybe transparent; convert all "
            "to grey or RGB of eight bits"
        )
    return opened


def _loaded(image: Any, where: str) -> Any:
    try:
        image.load()
    except Exception as error:  # a broken file may raise anything
        raise _broken(where, error) from None
    return image


def _broken(where: str, error: Exception) -> UserError:
    return UserError(f"{where}: not an image, or a broken one: {first_line(error)}")
