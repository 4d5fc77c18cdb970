"""Sentences: question types, opinions and film reviews, one kind of data with each client.

    FEDJOINT_DATA=~/data fedjoint simulate text

``FEDJOINT_DATA`` (default ``../shared/data``) names a folder with these files in its folder
``text``, one ``label sentence`` per line: TREC (Li and Roth 2002, six types of question), MPQA
(Wiebe et al. 2005, polarity of phrases) and MR (Pang and Lee 2005, polarity of film reviews). The
Stanford treebank is left out, as it holds the sentences of MR again: a test sentence of one would
train the other. A phrase of MPQA, of which a fifth repeat an earlier one, is kept once. TREC's own
test set stays its test set.
"""

from __future__ import annotations

from typing import Any

import fedjoint

from ._data import files
from ._script import progress, script, show

FILES = ("TREC.train.all", "TREC.test.all", "mpqa.all", "rt-polarity.all")


def config() -> dict[str, Any]:
    """Return the scenario; ``data.source.options.path`` reads other files in place of these."""
    return {
        "name": "text",
        "rounds": 20,
        "data": {
            "source": {
                "name": "text",
                "options": {"path": files(*FILES), "max_length": 32},
            },
            "clients": 24,
            "partition": "one_task",
        },
        "model": {"backbone": {"name": "text", "options": {"embedding": 16, "hidden": [32]}}},
        "local": {"epochs": 1, "batch_size": 32, "optimiser": {"name": "adam", "lr": 0.003}},
        # Most words are rare: only an adaptive step moves their embeddings far enough.
        "strategy": {"name": "fedadam", "options": {"server_lr": 0.3}, "weight_by": "task"},
    }


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
