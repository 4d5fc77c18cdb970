"""Where conflict is resolved: in the step, between tasks, between clients, or nowhere.

    python -m simulations.places --seeds 5 --tune 4

prints the table of docs/evidence.md, of the scenario digits where every client has three tasks.
Local steps, data and learning rates that are tried are the same for all.
"""

from __future__ import annotations

from typing import Any

from .. import digits
from .._variants import Variants, main


def config() -> dict[str, Any]:
    """Return the scenario digits, with three tasks for every client and the plain mean."""
    tree = digits.config()
    data = {**tree["data"], "task_mix": [["digit", "loop", "ink"]]}
    return {**tree, "name": "places", "data": data, "strategy": {"name": "fedavg"}}


#: where conflict is resolved -> tables of settings that make it so
VARIANTS = Variants(
    config(),
    {
        "nowhere": {},
        "in the step": {"balance": {"name": "upgrad"}},
        "between tasks": {"strategy": {"name": "upgrad"}},
        "between clients": {"strategy": {"name": "upgrad", "options": {"level": "client"}}},
        "in the step and between clients": {
            "balance": {"name": "upgrad"},
            "strategy": {"name": "upgrad", "options": {"level": "client"}},
        },
    },
)

if __name__ == "__main__":
    main("places", VARIANTS, "where conflict is resolved")
