"""Sentences: question types, opinions and film reviews, by the sentences that a client has."""

from __future__ import annotations

from typing import Any

from .._data import files

_TREC = ("TREC.train.all", "TREC.test.all")
_MR, _SST, _MPQA = "rt-polarity.all", ("stsa.binary.train", "stsa.binary.test"), "mpqa.all"

#: size of a comparison's name -> settings; each client draws so many, or all are divided
_SIZES = {
    "50": ["data.examples_per_client=50"],
    "200": ["data.examples_per_client=200"],
    "1000": ["data.examples_per_client=1000"],
    "all": [],
}

# Smaller than in the paper: clients have few sentences.
_BACKBONES = {
    "kim": ["model.backbone.name=kim", "model.backbone.options={embedding=32, maps=32}"],
    "transformer": [
        "model.backbone.name=transformer",
        "model.backbone.options={width=32, hidden=64, attention_heads=2}",
    ],
}


def suite() -> dict[str, Any]:
    """TREC, MPQA and MR or SST-2, with two backbones and four sizes of clients.

    SST-2 holds the sentences of MR: what is a test sentence of the one would train the other. So no
    comparison has both: those with ``sst2`` in their names have SST-2 in place of MR. The others
    leave repeated sentences out, but for ``repeats``: there all are kept, as published results do.
    """
    comparisons = {
        f"{backbone}-{size}": _comparison(backbone, size)
        for size in _SIZES
        for backbone in _BACKBONES
    }
    comparisons["kim-200-sst2"] = _comparison("kim", "200", reviews=_SST)
    comparisons["kim-200-repeats"] = _comparison(
        "kim", "200", "data.source.options.keep_repeats=true"
    )
    return {
        "name": "text",
        "smoke": ["rounds=2", "data.clients=6", "data.examples_per_client=30"],
        "comparisons": comparisons,
    }


def _comparison(
    backbone: str, size: str, *more: str, reviews: str | tuple[str, ...] = _MR
) -> dict[str, Any]:
    second = (reviews,) if isinstance(reviews, str) else reviews
    path = files(*_TREC, _MPQA, *second)
    own = [f"data.source.options.path={path}", "data.source.options.vocabulary=8192"]
    own += ["evaluate.every=2", "diagnostics.every=0"]
    return {"scenario": "text", "set": [*own, *_BACKBONES[backbone], *_SIZES[size], *more]}
