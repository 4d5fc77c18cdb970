"""Sentences as the tokens of a pretrained model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.inputs import Words
from fedjoint.model.pretrained.folder import EXTRA, check_folder
from fedjoint.model.pretrained.libraries import library, quiet


def words_of(path: str, max_length: int) -> Words:
    """Return how the tokenizer in ``path`` makes ids.

    Raises:
        UserError: there is none, or it cannot pad.
    """
    found = load_tokenizer(path)
    return Words(
        max_length=max_length, vocabulary=len(found), tokenizer=path, pad=found.pad_token_id
    )


def tokens(sentences: Sequence[str], words: Words) -> Tensor:
    """Return the ids of sentences, ``[n, max_length]`` int64, cut and padded at their ends.

    Raises:
        UserError: there is no such tokenizer, or it fails.
    """
    assert words.tokenizer is not None
    try:
        ids = load_tokenizer(words.tokenizer)(
            list(sentences), padding="max_length", truncation=True, max_length=words.max_length
        )["input_ids"]
    except UserError:
        raise
    except ANYTHING as error:  # whatever the library may raise
        raise UserError(f"tokenizer {words.tokenizer}: {said(error)}") from error
    return torch.tensor(ids, dtype=torch.int64).view(len(ids), words.max_length)


def tokenizer_files(path: str) -> dict[str, bytes]:
    """Return the files, by name, from which the tokenizer in ``path`` is loaded.

    Raises:
        UserError: there is none.
    """
    with TemporaryDirectory() as folder:
        load_tokenizer(path).save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


@cache
def tokenizer_digest(path: str) -> str:
    """Return what tells tokenizers apart: of their vocabulary, and of the ids of a sentence.

    The same tokenizer has the same wherever it lies.

    Raises:
        UserError: there is none, or it fails.
    """
    words = words_of(path, len(_TRIED))
    vocabulary = sorted(load_tokenizer(path).get_vocab().items())
    tried = [vocabulary, tokens([_TRIED], words).tolist()]
    return hashlib.sha256(json.dumps(tried).encode()).hexdigest()


#: Upper case, an accent, digits and a rare word: what tokenizers of one vocabulary may treat apart.
_TRIED = "The Quick brown fox isn't naïve: 12.5 % of 1,000 antidisestablishmentarianists"


@cache
def load_tokenizer(path: str) -> Any:
    """Return the tokenizer in a folder, or of the hub; one that pads with its end has no other.

    Raises:
        UserError: there is none, or it cannot pad.
    """
    # Its threads would be lost, and it says so, where a process forks later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers, local = library("transformers", EXTRA), check_folder(path)
    if local and not any((Path(path) / name).is_file() for name in _FILES):
        raise UserError(f"{path}: no tokenizer there ({_FILES[0]}); give a folder that has one")
    try:
        with quiet():
            found = transformers.AutoTokenizer.from_pretrained(
                path, trust_remote_code=False, local_files_only=local
            )
    except ANYTHING as error:  # whatever the library may raise
        raise UserError(f"tokenizer {path}: {said(error)}") from error
    if found.pad_token_id is None:
        if found.eos_token is None:
            raise UserError(f"tokenizer {path}: it has no token that pads: set its pad_token")
        found.pad_token = found.eos_token
    found.padding_side = found.truncation_side = "right"
    return found


_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model")
