"""Who has sent nonsense too often to be asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedjoint.runs.record import RoundRecord
from fedjoint.server.population import Population

FAULTS = 3  # rounds with a fault, after which nobody is asked


@dataclass
class Exclusions:
    """Counts rounds in which clients, and nodes with data of their own, sent what nobody may.

    A node's faults count for all of its clients. Those of a simulated node do not: any client may
    have been there.

    Attributes:
        clients: id -> faults.
        nodes: name -> faults.
    """

    clients: Counter[int] = field(default_factory=Counter)
    nodes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, records: Iterable[RoundRecord]) -> Exclusions:
        """Return what the rounds of a run so far say."""
        found = cls()
        for record in records:
            found.note(record)
        return found

    def note(self, record: RoundRecord) -> None:
        """Count the faults of a round."""
        failures = (*record.clients.failed, *record.clients.unevaluated)
        faults = [failure for failure in failures if failure.fault]
        self.clients.update({f.client for f in faults if f.client is not None})
        self.nodes.update({f.name for f in faults if f.client is None})

    def allowed(
        self, people: Population, chosen: np.ndarray, names: Mapping[int, str]
    ) -> np.ndarray:
        """Return those of the positions ``chosen`` that may be asked.

        Args:
            people: all clients.
            chosen: ``[n]`` positions.
            names: place of a node in ``people.home`` -> its name.
        """
        clients = [client for client, count in self.clients.items() if count >= FAULTS]
        nodes = [place for place, name in names.items() if self.nodes[name] >= FAULTS]
        if not clients and not nodes:
            return chosen
        bad = np.isin(people.ids[chosen], clients) | np.isin(people.home[chosen], nodes)
        return chosen[~bad]
