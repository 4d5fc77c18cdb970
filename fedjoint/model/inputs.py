"""What a model reads: the shape of one input, and how a file has it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from fedjoint.errors import UserError

Dtype = Literal[
    "float32", "int64", "bool", "float64", "float16", "bfloat16", "int32", "int16", "int8", "uint8"
]


class Words(BaseModel):
    """How sentences become ids, see :func:`fedjoint.data.text.encode`.

    Attributes:
        max_length: words, or tokens, kept of a sentence.
        vocabulary: number of ids, padding included.
        tokenizer: folder or name of a pretrained model's; None: words are hashed.
        pad: the id that pads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int
    vocabulary: int
    tokenizer: str | None = None
    pad: int = 0


class Inputs(BaseModel):
    """One input of a model, and how a file has it.

    Attributes:
        shape: of the input.
        dtype: ``int64`` for ids, ``bool`` for masks, ``float32`` for numbers; a backbone of one's
            own may take others.
        columns: names of the features in a table; None where a table cannot hold the input.
        name: of the column of Parquet, or the array of .npz, that holds the input.
        words: where the input is a sentence.
        pixels: whether bytes are divided by 255.
        stored: type of the numbers in the run's own files, ``uint8`` for images; None: not told.
        pad: what fills up an input whose first dimension is shorter; None: all are of one length.
        items: whether the first dimension is of items, of which one is preferred.
        vocabulary: how many ids the model knows, from 0; None: that is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[int, ...]
    dtype: Dtype
    columns: list[str] | None = None
    name: str | None = None
    words: Words | None = None
    pixels: bool = False
    stored: str | None = None
    pad: float | None = None
    items: bool = False
    vocabulary: int | None = None

    @property
    def size(self) -> int:
        """The number of numbers in one input."""
        size = 1
        for length in self.shape:
            size *= length
        return size


#: One tensor, or several by name, as :data:`fedjoint.model.tree.Input` has them.
Description = Inputs | dict[str, Inputs]


def tokenizer_of(inputs: Description) -> str | None:
    """Return the tokenizer that makes the ids that are read; None: there is none."""
    parts = [inputs] if isinstance(inputs, Inputs) else list(inputs.values())
    return next((part.words.tokenizer for part in parts if part.words), None)


def one_tensor(inputs: Description) -> Inputs:
    """Return what is read, by a backbone that reads one tensor.

    Raises:
        UserError: an input is a dict of several.
    """
    if isinstance(inputs, Inputs):
        return inputs
    names = ", ".join(map(repr, inputs))
    raise UserError(f"it takes one tensor, and an input is a dict of {names}; set model.backbone")
