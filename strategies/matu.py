"""MaTU: every task has a vector of its own, and clients get those of their tasks as one.

The clients' half is :mod:`fedjoint.clients.matu`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.options import UpToOne
from fedjoint.server.steps import Steps
from fedjoint.server.strategy import JointStrategy, circumstances
from fedjoint.server.updates import Updates
from fedjoint.training.method import LocalMethod
from fedjoint.training.unified import Unified, key, packed, unified, unpacked

from ._directions import shared_along


class MaTU(JointStrategy):
    """Many-task merging by unified task vectors, with masks and factors for each task.

    A task vector is what a backbone differs by from the origin, which all begin with.

    1. A client with several tasks sends their vectors unified, and for each a mask and a factor
       (see :mod:`fedjoint.training.unified`). The server rebuilds them.
    2. Aggregation: ``v_t`` is the weighted mean of task t's vectors, each coordinate times the
       share by which their signs agree, ``|mean of the signs|``, but unchanged where that is
       ``agreement`` or more.
    3. Transfer: the new vector of task t is the mean of the ``v_s`` of this round, weighted by the
       similarity of their signs to those of ``v_t`` where that exceeds ``threshold`` (``v_t``
       itself counts with weight one).
    4. A client receives the vectors of its set of tasks unified again, as its backbone, and with
       them masks and factors: of all sets of several tasks, a bit a parameter for each task of
       each. A client sends as many masks as there are tasks at all.

    Backbone 0 is the origin, for sets of tasks of which no client has trained yet. The others are
    those of sets. The state holds ``origin`` ``[P]``, ``vector/<task>`` ``[P]``, and
    ``place/<tasks>``, the number of a set's backbone.

    Args:
        threshold: least similarity at which tasks share, in [0, 1]; the share of coordinates on
            which signs agree minus the share on which they differ.
        agreement: the paper's rho, in [0, 1].

    Paper: Tsouvalas, Ozcelebi and Meratnia, "Many-Task Federated Fine-Tuning via Unified Task
    Vectors", 2025, https://arxiv.org/abs/2502.06376, of which no code was found. Unifying is
    compared with that of EMR-Merging (Huang et al., 2024, https://arxiv.org/abs/2405.17461), which
    it is; aggregation and transfer with nobody's numbers.
    """

    method = "matu"
    by_part = False  # signs are compared over whole backbones
    omits = "a limit on how many tasks a task takes from, adapters as the paper has them"

    def __init__(self, threshold: UpToOne = 0.0, agreement: UpToOne = 0.4) -> None:
        super().__init__()
        self.threshold = threshold
        self.agreement = agreement

    def check_config(self, config: Config, method: LocalMethod) -> None:
        super().check_config(config, method)
        if config.strategy.clip is not None:
            raise UserError(
                "strategy.clip would scale the factors of matu's task vectors like updates: leave "
                "it out"
            )

    def broadcast(self, backbone: Tensor) -> dict[str, Tensor]:
        known = circumstances(self)
        count = len(known.rising) if known else 0
        sent = {"origin": self.state.get("origin", backbone), "tasks": torch.tensor(count)}
        for which in self.places():
            names = which.split("/")
            if len(names) > 1:
                found = self.of_set(names)
                sent |= {f"masks/{which}": packed(found.masks), f"factors/{which}": found.factors}
        return sent

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        known, places = circumstances(self), self.places()
        names = list(known.rising) if known else []
        return torch.tensor([places.get(_key(names, row), 0) for row in tasks.tolist()])

    def merge(self, updates: Updates) -> Steps:
        origin = self.state.setdefault("origin", updates.backbones[0].clone())
        names, vectors = updates.task_names, {}
        sent = updates.backbones[updates.received] + updates.matrix - origin
        for at, name in enumerate(names):
            rows = updates.tasks[:, at].nonzero()[:, 0].tolist()
            if rows:
                own = torch.stack([self.rebuilt(updates, sent[row], row, name) for row in rows])
                weights = updates.weights[rows]
                vectors[name] = self.aggregate(own, weights / weights.sum().clamp(min=1e-12))
        mixed = shared_along(torch.stack(list(vectors.values())), self.threshold)
        self.state |= {f"vector/{n}": v for n, v in zip(vectors, mixed, strict=True)}
        places, count = self.places(), len(updates.backbones)
        for which in sorted({_key(names, row) for row in updates.tasks.tolist()} - places.keys()):
            places[which] = len(places) + 1
            self.state[f"place/{which}"] = torch.tensor(places[which])
        of = torch.arange(len(places) + 1)
        of[count:] = 0
        steps = updates.matrix.new_zeros(len(of), updates.matrix.shape[1])
        for which, place in places.items():
            steps[place] = origin + self.of_set(which.split("/")).vector
            steps[place] -= updates.backbones[of[place]]
        return Steps(of, steps)

    def places(self) -> dict[str, int]:
        """Return set of tasks -> its backbone."""
        start = "place/"
        known = {n: int(t) for n, t in self.state.items() if n.startswith(start)}
        return {n.removeprefix(start): place for n, place in known.items()}

    def of_set(self, names: list[str]) -> Unified:
        """Return the vectors of some tasks, unified."""
        return unified(torch.stack([self.state[f"vector/{name}"] for name in names]))

    def rebuilt(self, updates: Updates, vector: Tensor, row: int, task: str) -> Tensor:
        """``[P]``, a client's vector of a task.

        Args:
            updates: of all clients.
            vector: ``[P]``, what the client sent, from the origin.
            row: which client.
            task: one of its tasks.
        """
        own = _key(updates.task_names, updates.tasks[row].tolist()).split("/")
        if len(own) == 1:
            return vector
        at = own.index(task)
        mask = unpacked(updates.extras["masks"][row, at], len(vector))
        return updates.extras["factors"][row, at] * mask * vector

    def aggregate(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """``[P]``, the vector of a task.

        Args:
            vectors: ``[n, P]``, the clients'.
            weights: ``[n]``, which sum to one.
        """
        agreed = vectors.sign().mean(0).abs()
        trust = torch.where(agreed >= self.agreement, 1.0, agreed)
        return trust * (weights @ vectors)


def _key(names: tuple[str, ...] | list[str], has: list[bool]) -> str:
    return key([name for name, own in zip(names, has, strict=True) if own])
