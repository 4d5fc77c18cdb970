"""A column of images, texts or numbers -> the inputs of the examples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.cells import stacked
from fedjoint.data.pixels import channels_first, decode, scaled
from fedjoint.data.text import encode
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs, Words
from fedjoint.model.ragged import filled

_WORDS = 40  # kept of a text, where nothing is said
_HINT = "choose another data.source.options.input"

#: kinds of task whose inputs are sequences of ids
_SEQUENCES = ("tokens", "language")


@dataclass(frozen=True)
class Reading:
    """How a column of inputs is read.

    Attributes:
        kinds: of the tasks: with one of sequences, lists of whole numbers are ids; with a
            preference, an input is a list of items.
        max_length: words kept of a text, and ids of a list; None: 40, and all.
        vocabulary: hash buckets of words, and padding.
        pad: the id that fills up lists of ids.
    """

    kinds: Collection[str]
    max_length: int | None
    vocabulary: int
    pad: int

    @property
    def items(self) -> bool:
        """Whether an input is a list of items."""
        return "preference" in self.kinds

    @property
    def words(self) -> Words:
        """How a text is read."""
        return Words(max_length=self.max_length or _WORDS, vocabulary=self.vocabulary)

    def described(self, inputs: Inputs, name: str, values: Sequence[Any]) -> Inputs:
        """Return the description of inputs with what a reader of files has to know.

        Args:
            inputs: their shape and type.
            name: of the column.
            values: of the column.
        """
        own: dict[str, Any] = {"name": name, "items": self.items}
        if inputs.dtype != "int64":
            image = isinstance(values[0], bytes | dict)
            own |= {
                "pixels": True,
                "stored": "uint8" if image else np.asarray(values[0]).dtype.name,
            }
        elif is_text(values[0]):
            own["words"] = self.words
        else:
            own["pad"] = self.pad
        return inputs.model_copy(update=own)

    def options(self, inputs: Inputs, named: Collection[str]) -> dict[str, Any]:
        """Return the options, beside those ``named``, with which a column is read as ``inputs``."""
        words, found = inputs.words, dict[str, Any](input=inputs.name)
        if words and words.tokenizer is None:
            found |= {"max_length": words.max_length, "vocabulary": words.vocabulary}
        return {name: value for name, value in found.items() if value and name not in named}

    def inputs(self, values: Sequence[Any], where: str) -> Tensor:
        """Return the inputs of a column of one kind.

        Texts, and lists of words, become word ids ``[n, max_length]``, image files and arrays of
        images ``[n, channels, height, width]``, lists of ids ``[n, length]`` int64, and lists of
        numbers ``[n, k]`` float32; bytes are scaled to 0..1. With a preference, lists of texts are
        ``[n, items, max_length]``, and lists of lists of numbers stay as they are.

        Args:
            values: ``n`` of them.
            where: the column, for errors.

        Raises:
            UserError: they are of no such kind, or not all of one kind and shape.
        """
        if any(map(is_text, values)):
            return self._texts(values, where)
        if any(isinstance(value, bytes | dict) for value in values):
            return decode(values, where)
        if any(kind in _SEQUENCES for kind in self.kinds):
            return self._ids(values, where)
        x = torch.from_numpy(scaled(stacked(values, where, hint=_HINT), where))
        if x.ndim in (3, 4) and not self.items:
            return channels_first(x)
        return x[:, None] if x.ndim == 1 else x

    def _texts(self, values: Sequence[Any], where: str) -> Tensor:
        for row, value in enumerate(values):
            if not is_text(value) or (isinstance(value, str) and not value.strip()):
                raise UserError(f"{where} of row {row} has no words; leave the row out")
        words = self.words
        if not self.items:
            return encode(values, words.max_length, words.vocabulary)
        counts = {len(value) if isinstance(value, list) else 1 for value in values}
        if len(counts) > 1 or counts == {1}:
            raise UserError(
                f"{where}: a preference is for one of several texts: give every row a list of as "
                "many"
            )
        texts = [text for value in values for text in value]
        ids = encode(texts, words.max_length, words.vocabulary)
        return ids.view(len(values), -1, words.max_length)

    def _ids(self, values: Sequence[Any], where: str) -> Tensor:
        array = stacked(values, where, self.pad, _HINT)
        if array.dtype.kind not in "iu" or array.ndim != 2 or array.min() < 0:
            raise UserError(
                f"{where}: with a task of {' or '.join(_SEQUENCES)}, an input is a text, or a list "
                "of ids: whole numbers from 0"
            )
        ids = torch.from_numpy(array.astype(np.int64))[:, : self.max_length]
        return filled(ids, max(ids.shape[1], self.max_length or 0), self.pad)


def is_text(value: Any) -> bool:
    """Say whether a value is a text, or a list of texts."""
    return isinstance(value[0] if isinstance(value, list) and value else value, str)
