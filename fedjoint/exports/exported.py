"""A model that was exported, and the formats in which it is written."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedjoint.errors import UserError, choose
from fedjoint.exports.model import CARD, FILES, Card
from fedjoint.exports.pretrained import WEIGHTS, bundled, of_its_library
from fedjoint.model.tree import Input, cat, each, named
from fedjoint.runs.files import write_files
from fedjoint.runs.seal import seal
from fedjoint.runs.tensors import pack


@dataclass(frozen=True)
class Exported:
    """A model, what describes it, and an input.

    Attributes:
        model: the model.
        card: what describes it.
        example: ``[1, ...]`` an input.
    """

    model: nn.Module
    card: Card
    example: Input

    def write(self, folder: str | Path, formats: Iterable[str] = ("safetensors",)) -> None:
        """Write the model to ``folder``, in place of one that is there: as a whole or not at all.

        Args:
            folder: made where it is not there.
            formats: ``safetensors``, ``export`` (``torch.export``), ``onnx``, or ``hf``: of a
                pretrained backbone what ``from_pretrained`` of its library loads, or peft's.

        Raises:
            UserError: a format is unknown or cannot hold the model, or the folder cannot be
                written.
        """
        card, files = bundled(self.model, self.card)
        for name in formats:
            if name not in _MAKERS:
                raise choose("format", name, _MAKERS)
            files |= _MAKERS[name](self)
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        card = card.model_copy(update={"files": sums})
        sealed = json.dumps(seal(card.model_dump(mode="json")), indent=2) + "\n"
        none = dict.fromkeys([*FILES.values(), *WEIGHTS])
        write_files(Path(folder), {**none, **files, CARD: sealed.encode()})


def _batch(exported: Exported) -> tuple[Input, dict[str, Any]]:
    """Return inputs and dynamic shapes for tracing; of two rows, as one would be a constant."""
    batch = torch.export.Dim("batch")
    x = cat([exported.example] * 2)
    return x, {"x": each(lambda _: {0: batch}, x)}


def _torch_export(exported: Exported) -> bytes:
    x, shapes = _batch(exported)
    program = _traced(lambda: torch.export.export(exported.model, (x,), dynamic_shapes=shapes))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(exported: Exported) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("--format onnx needs onnx; pip install 'fedjoint[onnx]'") from None
    x, shapes = _batch(exported)
    program = _traced(
        lambda: torch.onnx.export(
            exported.model,
            kwargs={"x": x},  # a dict in args would be taken for these
            input_names=[name or "x" for name in named(exported.example)],
            output_names=["output"],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    )
    return program.model_proto.SerializeToString()


def _traced(trace: Callable[[], Any]) -> Any:
    """Call ``trace`` without its chatter.

    Raises:
        UserError: the model cannot be traced.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trace()
    except Exception as error:  # a backbone of one's own may fail to trace in any way
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"the model cannot be traced ({first}); use --format safetensors") from None
    finally:
        logger.setLevel(level)


def _safetensors(exported: Exported) -> bytes:
    return pack(exported.model.state_dict(), {"format": "pt"})


#: format -> what makes its files, by name
_MAKERS: dict[str, Callable[[Exported], dict[str, bytes]]] = {
    "safetensors": lambda exported: {FILES["safetensors"]: _safetensors(exported)},
    "export": lambda exported: {FILES["export"]: _torch_export(exported)},
    "onnx": lambda exported: {FILES["onnx"]: _onnx(exported)},
    "hf": lambda exported: of_its_library(exported.model),
}
