"""``python -m simulations.attacks``: accuracy of eight rules under five attacks."""

from __future__ import annotations

import tempfile
from typing import Annotated

import numpy as np
import typer

import fedjoint
from fedjoint.cli.common import parts, say
from fedjoint.errors import UserError

RULES = "fedavg,normclip,median,trimmedmean,geometricmedian,krum,multikrum,bulyan"
ATTACKS = "none,sign flip,boosted flip,noise,alike,1e6 times"


def main(
    rules: Annotated[str, typer.Option(help="Strategies.")] = RULES,
    attacks: Annotated[str, typer.Option(help="See simulations/attacks/method.py.")] = ATTACKS,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each cell.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run.")] = 15,
) -> None:
    """Print the accuracy after training with 20 clients, 4 of which lie: mean and deviation."""
    names = parts(attacks)
    say(f"| rule | {' | '.join(names)} |")
    say(f"| --- {'| --- ' * len(names)}|")
    for rule in parts(rules):
        cells = [_cell(rule, attack, seeds, rounds) for attack in names]
        say(f"| `{rule}` | {' | '.join(cells)} |")


def _cell(rule: str, attack: str, seeds: int, rounds: int) -> str:
    found = []
    for seed in range(seeds):
        try:
            found.append(_accuracy(rule, attack, seed, rounds))
        except UserError:  # a run ends where nobody has anything finite to send any more
            return "diverges"
    return f"{np.mean(found):.3f} ± {np.std(found):.3f}"


def _accuracy(rule: str, attack: str, seed: int, rounds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "seed": seed,
            "rounds": rounds,
            "data": {"clients": 20, "partition": "iid", "task_mix": [["digit"]]},
            "local": {
                "epochs": 4,
                "optimiser": {"lr": 0.5},
                "method": "fedjoint.simulations.attacks.method:Lying",
                "options": {"attack": attack},
            },
            "strategy": {"name": rule},
            "evaluate": {"every": rounds},
            "diagnostics": {"every": 0},
            "engine": {"name": "inline"},
            "output": {"dir": folder, "checkpoint_every": rounds},
        }
        return fedjoint.simulate(settings).metrics["test"]["digit"] or 0.0


if __name__ == "__main__":
    typer.run(main)
