"""Sentences: question types, opinions and film reviews, one kind of data with each client.

    FEDJOINT_DATA=~/data fedjoint simulate text

``FEDJOINT_DATA`` (default ``../shared/data``) names a folder with these files in its folder
``text``, one ``label sentence`` per line: TREC (Li and Roth 2002, six types of question), MPQA
(Wiebe et al. 2005, polarity of phrases) and MR (Pang and Lee 2005, polarity of film reviews). The
Stanford treebank is left out, as it holds the sentences of MR again: a test sentence of one would
train the other. A phrase of MPQA, of which a fifth repeat an earlier one, is kept once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fedjoint
from fedjoint.errors import UserError

from ._script import progress, script, show

FILES = ("TREC.train.all", "TREC.test.all", "mpqa.all", "rt-polarity.all")


def config() -> dict[str, Any]:
    """Return the scenario.

    Raises:
        UserError: a file is not there.
    """
    return {
        "name": "text",
        "rounds": 20,
        "data": {
            "source": {
                "name": "text",
                "options": {"path": [str(path) for path in _files()], "max_length": 32},
            },
            "clients": 24,
            "task_mix": [["TREC"], ["mpqa"], ["rt-polarity"]],
            "partition": "iid",
        },
        "model": {"backbone": {"name": "text", "options": {"embedding": 16, "hidden": [32]}}},
        "local": {"epochs": 1, "batch_size": 32, "optimiser": {"name": "adam", "lr": 0.003}},
        # Most words are rare: only an adaptive step moves their embeddings far enough.
        "strategy": {"name": "fedadam", "options": {"server_lr": 0.3}, "weight_by": "task"},
    }


def _files() -> list[Path]:
    root = Path(os.environ.get("FEDJOINT_DATA") or "../shared/data").expanduser().resolve()
    paths = [root / "text" / name for name in FILES]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; set FEDJOINT_DATA to a folder whose folder 'text' holds "
                + ", ".join(FILES)
            )
    return paths


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
