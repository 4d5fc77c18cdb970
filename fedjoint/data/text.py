"""Sentences as ids of words, or of tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedjoint._util.memory import check_fits
from fedjoint.model.inputs import Words
from fedjoint.model.pretrained.tokenizer import tokens

#: number of word ids, padding included
Vocabulary = Annotated[int, Field(ge=2, le=2**31 - 1)]


def as_ids(sentences: Sequence[str | Sequence[str]], words: Words) -> Tensor:
    """Return the ids of sentences, or of lists of words, ``[n, max_length]`` int64.

    Raises:
        UserError: the tokenizer is not there.
    """
    if words.tokenizer is not None:
        return tokens([s if isinstance(s, str) else " ".join(s) for s in sentences], words)
    return encode(sentences, words.max_length, words.vocabulary)


def words_in(sentence: str | Sequence[str]) -> Sequence[str]:
    """Return the words of a sentence, which may be a list of them already."""
    return sentence.split() if isinstance(sentence, str) else sentence


def encode(sentences: Iterable[str | Sequence[str]], max_length: int, vocabulary: int) -> Tensor:
    """Hash words to ids, ``[n, max_length]`` int64; id 0 pads.

    A word's id depends on the word alone, so clients agree on it without sharing a vocabulary.

    Args:
        sentences: words with white space between, or lists of words; upper and lower case are the
            same.
        max_length: words kept.
        vocabulary: number of ids, padding included.
    """

    @cache
    def word_id(word: str) -> int:
        return 1 + zlib.crc32(word.encode("utf-8", "surrogatepass")) % (vocabulary - 1)

    rows = [[word_id(w.lower()) for w in words_in(s)[:max_length]] for s in sentences]
    check_fits(
        f"{len(rows)} texts of max_length = {max_length}",
        8 * float(len(rows)) * max_length,
        "lower max_length",
    )
    ids = np.zeros((len(rows), max_length), np.int64)
    for row, words in zip(ids, rows, strict=True):
        row[: len(words)] = words
    return torch.from_numpy(ids)
