"""What a backbone reads: as a run notes it, and as it is compared with what is read elsewhere.

Weights fit whatever has their shapes: that a column is another one, no shape tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fedjoint.data.source import Source
from fedjoint.errors import UserError
from fedjoint.model.inputs import Description, Inputs, tokenizer_of
from fedjoint.model.pretrained.tokenizer import tokenizer_digest
from fedjoint.model.tree import Input, named

_SAID = 12  # columns in a message

#: How to have the columns that a backbone reads, where they are too many to be said.
_IN_ORDER = "name them in that order by data.source.options.features"


class Reads(BaseModel):
    """What a backbone reads.

    Attributes:
        parts: name of a tensor of an input -> its description; of one tensor alone, an empty name.
        source: whether a data source says so: of a problem in Python, shapes and types are known.
        tokens: digest of the tokenizer that makes ids; None: there is none, or it is not known.
        standardised: whether each client standardises its features; None: no such choice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: dict[str, Inputs]
    source: bool = False
    tokens: str | None = None
    standardised: bool | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of files that are read, by name, as far as they have any."""
        parts = self.parts.values()
        return [name for part in parts for name in [*(part.columns or ()), part.name] if name]

    def within(self, folder: Path) -> Reads:
        """Return this with the tokenizer that an export in ``folder`` has beside it."""
        parts = {name: _moved(part, folder) for name, part in self.parts.items()}
        return self.model_copy(update={"parts": parts})

    def noted(self) -> Reads:
        """Return this with the digest of its tokenizer, where that is there."""
        path = tokenizer_of(dict(self.parts))
        if path is None or self.tokens is not None:
            return self
        try:
            return self.model_copy(update={"tokens": tokenizer_digest(path)})
        except UserError:  # it has been moved: what else is known is compared
            return self


def reads_of(source: Source, inputs: Description) -> Reads:
    """Return what is read, as a data source describes it.

    Args:
        source: the data source.
        inputs: what it says.
    """
    named_by_source = type(source).inputs is not Source.inputs
    parts = {name: _own(part, named_by_source) for name, part in _parts(inputs).items()}
    standardised = source.standardise if "standardise" in vars(source) else None
    return Reads(parts=parts, source=True, standardised=standardised)


def reads_of_card(inputs: Description, here: Reads, *, source: bool) -> Reads:
    """Return what is read, as an export's card has it.

    Args:
        inputs: what the card says; it calls columns without a name x0, x1, ..., as some are called.
        here: what it is to be compared with.
        source: whether a data source said so, and not a problem in Python.
    """
    known = set(here.columns)
    parts = {
        name: _own(part, part.columns != _numbered(part) or known == set(part.columns or ()))
        for name, part in _parts(inputs).items()
    }
    return Reads(parts=parts, source=source)


def _numbered(part: Inputs) -> list[str]:
    return [f"x{i}" for i in range(len(part.columns or ()))]


def reads_of_example(example: Input, pad: Mapping[str, float]) -> Reads:
    """Return what is read, as far as ``[1, ...]`` an input tells.

    Args:
        example: the input.
        pad: name of a tensor -> what fills it up.
    """
    parts: dict[str, Inputs] = {}
    for name, tensor in named(example).items():
        kind: Any = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape[1:])
        parts[name] = Inputs(shape=shape, dtype=kind, pad=pad.get(name))
    return Reads(parts=parts)


def check_same_inputs(known: Reads, here: Reads, whose: str) -> None:
    """Make sure that inputs are those that a backbone was trained on.

    Args:
        known: what it was trained on.
        here: what it is to read.
        whose: the backbone is, to begin the message.

    Raises:
        UserError: they are others; the line says what differs, and how to put it right.
    """
    for there, own, cure in _differences(known.noted(), here.noted()):
        raise UserError(f"{whose}: trained on {there}, and given {own} here: {cure}")


def _moved(part: Inputs, folder: Path) -> Inputs:
    if part.words is None or part.words.tokenizer is None:
        return part
    beside = folder / part.words.tokenizer
    path = str(beside) if beside.is_dir() else part.words.tokenizer
    words = part.words.model_copy(update={"tokenizer": path})
    return part.model_copy(update={"words": words})


def _parts(inputs: Description) -> dict[str, Inputs]:
    return {"": inputs} if isinstance(inputs, Inputs) else dict(inputs)


def _own(part: Inputs, has_columns: bool) -> Inputs:
    """Return a description without names that nobody gave: of the numbers of one column."""
    if has_columns and part.name is None:
        return part
    return part.model_copy(update={"columns": None})


def _differences(known: Reads, here: Reads) -> Iterator[tuple[str, str, str]]:
    """Yield what differs: as it was, as it is, and how to put that right."""
    if known.parts.keys() != here.parts.keys():
        was, now = (", ".join(map(repr, sorted(each.parts))) for each in (known, here))
        yield f"tensors named {was}", now, "give inputs of these names"
        return
    sure = known.source and here.source
    for name, there in known.parts.items():
        what = f"{name!r}: " if name else ""
        for old, new, cure in _unlike(there, here.parts[name], sure):
            yield what + old, new, cure
    if None not in (known.tokens, here.tokens) and known.tokens != here.tokens:
        names = [tokenizer_of(dict(each.parts)) for each in (known, here)]
        cure = "set data.source.options.tokenizer to the first one"
        yield f"the tokens of {names[0]}", f"other tokens, of {names[1]},", cure
    scaled = known.standardised, here.standardised
    if None not in scaled and scaled[0] != scaled[1]:
        cure = f"set data.source.options.standardise = {str(scaled[0]).lower()}"
        yield f"{_scaled(scaled[0])} features", f"{_scaled(scaled[1])} ones", cure


def _scaled(standardised: bool | None) -> str:
    return "standardised" if standardised else "unscaled"


def _unlike(there: Inputs, here: Inputs, sure: bool) -> Iterator[tuple[str, str, str]]:
    """Yield what differs in one tensor; ``sure``: what is not said of it is not so."""
    yield from _unlike_names(there, here)
    if there.dtype != here.dtype:
        yield there.dtype, here.dtype, "give inputs of that type"
    if sure or (there.words and here.words):
        yield from _unlike_words(there, here)
    if sure and len(there.shape) > 1 and there.pixels != here.pixels:
        kinds = ["pixels" if each.pixels else "numbers" for each in (there, here)]
        yield kinds[0], kinds[1], "give inputs of that kind"
    if None not in (there.pad, here.pad) and there.pad != here.pad:
        cure = f"set data.source.options.pad = {there.pad:g}, or pad of the problem"
        yield f"ids padded by {there.pad:g}", f"such by {here.pad:g}", cure
    # What is padded may be longer or shorter; of words, max_length is compared.
    free = int(there.pad is not None and here.pad is not None)
    if there.shape[free:] != here.shape[free:] or len(there.shape) != len(here.shape):
        yield f"inputs of {_shape(there)}", _shape(here), "give inputs of that shape"


def _unlike_names(there: Inputs, here: Inputs) -> Iterator[tuple[str, str, str]]:
    old, new = there.columns, here.columns
    if old and new and old != new:
        cure = f"set data.source.options.features = {old}" if len(old) <= _SAID else _IN_ORDER
        was, now = _from_first_difference(old, new)
        if sorted(old) == sorted(new):
            yield f"the columns {was}", f"them as {now}", cure
        else:
            yield f"the columns {was}", now, f"{cure}, of data that have them"
    if there.name and here.name and there.name != here.name:
        cure = f"set data.source.options.input = {there.name!r}, of data that have it"
        yield repr(there.name), repr(here.name), cure


def _unlike_words(there: Inputs, here: Inputs) -> Iterator[tuple[str, str, str]]:
    old, new = there.words, here.words
    if (old is None) != (new is None):
        kinds = ["words of a text" if each else "no text" for each in (old, new)]
        yield kinds[0], kinds[1], "give inputs of that kind"
    if old is None or new is None:
        return
    if (old.tokenizer is None) != (new.tokenizer is None):
        hows = [_how(each.tokenizer) for each in (old, new)]
        cure = f"set data.source.options.tokenizer = {old.tokenizer!r}"
        left = "leave data.source.options.tokenizer out"
        yield hows[0], hows[1], cure if old.tokenizer else left
        return
    for key, unit in (("max_length", "words of a text"), ("vocabulary", "ids of words")):
        was, now = getattr(old, key), getattr(new, key)
        if was != now:
            yield f"{was} {unit}", str(now), f"set data.source.options.{key} = {was}"


def _how(tokenizer: str | None) -> str:
    return f"the tokens of {tokenizer}" if tokenizer else "hashed words"


def _from_first_difference(old: list[str], new: list[str]) -> tuple[str, str]:
    """Return two lists as they are shown: long ones from where they differ."""
    long = max(len(old), len(new)) > _SAID
    alike = [a == b for a, b in zip(old, new, strict=False)]
    at = [*alike, False].index(False) if long else 0
    shown = (
        "... " * (at > 0)
        + (", ".join(names[at : at + _SAID]) or "no more")
        + ", ..." * (len(names) > at + _SAID)
        for names in (old, new)
    )
    was, now = shown
    return was, now


def _shape(part: Inputs) -> str:
    return " x ".join(map(str, part.shape)) or "one number"
