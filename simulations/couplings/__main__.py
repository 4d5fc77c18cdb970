"""What groups of clients with different models gain from one another, in the scenario unlike.

    python -m simulations.couplings --seeds 5

prints the table of docs/groups.md. Whatever couples the groups, each merges its own backbone by
FedAvg, too.
"""

from __future__ import annotations

from .. import unlike
from .._variants import Variants, main

#: what couples the groups -> tables of settings that make it so
VARIANTS = Variants(
    unlike.config(),
    {
        "each group": {},
        "common trunk": {"model": {"common": ["backbone.trunk.*"]}},
        "prototypes": {"strategy": {"name": "fedproto", "options": {"merge": True}}},
        "logits": {"strategy": {"name": "fedmd", "options": {"merge": True}}},
        "ensemble": {"strategy": {"name": "feddf"}, "model": {"heads": "shared"}},
    },
)

if __name__ == "__main__":
    main("couplings", VARIANTS, "alone or coupled by")
