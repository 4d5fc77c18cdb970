"""Auto: each task jointly, with its like, or alone, as its validation data would have it."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.options import Count
from fedjoint.server.steps import Steps
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates
from fedjoint.training.method import LocalMethod

from ._places import known_of, nobody, noted
from ._tasks import as_before, begin_anew
from ._turns import Measured, Turns, rounds_of_a_turn, validated

JOINT, ALIKE, ALONE = range(3)


class Auto(JointStrategy):
    """Each task has one backbone for all, one for clients with the same tasks, or one a client.

    The three ways take turns from the first round on, from one evaluation to the next, each with
    backbones of its own, all from one start. After ``trial`` turns of each, every task takes the
    way of its best validation metric, by the mean over the second half of the turns; of equals the
    one that shares more. A client goes the way of most of its tasks, and backbones that no task
    wants go. So the ways that lose cost two thirds of the trial's rounds, and what is chosen has
    trained in a third of them. Heads are the clients' own, and follow every turn.

    Backbone 0 is the joint one. Who comes later starts from it in every way.

    Where the run's tasks change, as nodes come and go, it begins anew from backbone 0.

    The state holds ``tasks``, what they are; ``since``, the round before the trial; ``sets``
    ``[S, tasks]`` bool, the sets of tasks so far, and ``row`` ``[S]`` int64, their backbones;
    ``place`` ``[2, ids]`` int64, every client id so far, and its backbone; in the trial the sums of
    metrics, and after it ``pick`` ``[tasks]`` int64, their ways.

    Args:
        trial: turns of each way.
    """

    by_part = False  # its backbones are whole

    def __init__(self, trial: Count = 4) -> None:
        super().__init__()
        self.trial = trial

    def check_config(self, config: Config, method: LocalMethod) -> None:
        super().check_config(config, method)
        trial = 3 * self.trial * config.evaluate.every
        if config.rounds <= trial:
            raise UserError(
                f"strategy auto tries three ways for {trial} rounds (3 * trial * evaluate.every), "
                f"and the run has {config.rounds}: raise rounds, or lower strategy.options.trial "
                "or evaluate.every"
            )
        if not config.data.valid_fraction:
            raise UserError("strategy auto goes by validation data: set data.valid_fraction")

    def turns(self) -> Turns:
        """Return who trains when in the trial."""
        return Turns(int(self.state["since"]), rounds_of_a_turn(self), 3, self.trial)

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        return self.rows(round, clients, tasks) if as_before(self) else torch.zeros_like(clients)

    def rows(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        """``[n]`` int64, the backbones of clients in a round; 0 of those that have none yet."""
        alike, alone = self.rows_alike(tasks), known_of(clients, self.state["place"], 0)
        rows = torch.stack([torch.zeros_like(alike), alike, alone])
        return rows.gather(0, self.ways(round, tasks)[None])[0]

    def ways(self, round: int, tasks: Tensor) -> Tensor:
        """``[n]`` int64, the way of clients with ``tasks`` ``[n, T]``."""
        if "pick" in self.state:
            votes = torch.nn.functional.one_hot(self.state["pick"], 3)
            return (tasks.long() @ votes).argmax(1)
        return torch.full((len(tasks),), self.turns().way(round) or JOINT)

    def rows_alike(self, tasks: Tensor) -> Tensor:
        """``[n]`` int64, the backbones of the sets of tasks ``[n, T]``; 0: none yet."""
        same = (tasks[:, None] == self.state["sets"]).all(2)
        found = torch.cat([same, torch.ones(len(tasks), 1, dtype=torch.bool)], 1).long().argmax(1)
        return torch.cat([self.state["row"], torch.zeros(1, dtype=torch.int64)])[found]

    def merge(self, updates: Updates) -> Steps:
        if (anew := begin_anew(self, updates)) is not None:
            return anew
        count = len(updates.task_names)
        length = rounds_of_a_turn(self)
        self.state.setdefault("since", torch.tensor((updates.round - 1) // length * length))
        self.state.setdefault("sets", torch.zeros(0, count, dtype=torch.bool))
        self.state.setdefault("row", torch.zeros(0, dtype=torch.int64))
        self.state.setdefault("place", nobody())
        kept = self.join(updates, len(updates.backbones))
        # Who is new has received the joint backbone, and moves its own.
        moves = updates.means_of(self.rows(updates.round, updates.clients, updates.tasks), kept)
        of = torch.arange(kept)
        of[len(updates.backbones) :] = 0
        if "pick" not in self.state:
            self.listen(updates)
        self.report |= {f"way of {n}": float(way) for n, way in self.picked(updates).items()}
        left = self.prune(kept)
        return Steps(of[left], moves[left])

    def picked(self, updates: Updates) -> dict[str, int]:
        """Return the way of each task, once it is decided."""
        picks = self.state["pick"].tolist() if "pick" in self.state else []
        return dict(zip(updates.task_names, picks, strict=False))

    def join(self, updates: Updates, count: int) -> int:
        """Give new sets of tasks and new clients backbones; return how many there are then."""
        wanted = set(self.state["pick"].tolist()) if "pick" in self.state else {ALIKE, ALONE}
        sets = updates.tasks.unique(dim=0)
        new = sets[self.rows_alike(sets) == 0] if ALIKE in wanted else sets[:0]
        self.state["sets"] = torch.cat([self.state["sets"], new])
        self.state["row"] = torch.cat([self.state["row"], count + torch.arange(len(new))])
        count += len(new)
        place = self.state["place"]
        strangers = updates.clients[known_of(updates.clients, place, 0) == 0]
        strangers = strangers if ALONE in wanted else strangers[:0]
        own = count + torch.arange(len(strangers))
        self.state["place"] = noted(place, strangers, own)
        return count + len(strangers)

    def listen(self, updates: Updates) -> None:
        """Hear what was measured; after the trial, let every task pick its way."""
        turns, heard = self.turns(), Measured(self.state, 3, len(updates.task_names))
        measured, before = (
            turns.measured(updates.round, updates.evaluated),
            updates.round - 2 - turns.since,
        )
        if measured is not None and 2 * (before // (3 * turns.length)) >= self.trial - 1:
            heard.add(measured, validated(self, updates))
        if updates.round > turns.last:
            valid = heard.close().nan_to_num(nan=-torch.inf)
            self.state["pick"] = valid.argmax(0)  # the first of equals

    def prune(self, count: int) -> Tensor:
        """Return ``[K']`` int64, the backbones that are wanted still; number them anew."""
        if "pick" not in self.state:
            return torch.arange(count)
        wanted = set(self.state["pick"].tolist())
        if ALIKE not in wanted:
            self.state["sets"], self.state["row"] = self.state["sets"][:0], self.state["row"][:0]
        ids, own = self.state["place"] if ALONE in wanted else nobody()
        left = torch.zeros(count, dtype=torch.bool)
        left[0] = left[self.state["row"]] = left[own] = True
        number = left.long().cumsum(0) - 1
        self.state["row"] = number[self.state["row"]]
        self.state["place"] = torch.stack([ids, number[own]])
        return left.nonzero().squeeze(1)
