"""Auto: each task with its like, unless validation data would have it joined to all, or alone."""

from __future__ import annotations

import logging

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
from ._tasks import as_before, begin_anew, most_of
from ._turns import Turns, rounds_of_a_turn, rounds_of_the_run, validated

log = logging.getLogger("fedjoint.strategies")

JOINT, ALIKE, ALONE = range(3)

RIVAL, PRESENT = range(2)  # who takes turns in a trial, in this order


class Auto(JointStrategy):
    """Each task has one backbone for all, one for clients with the same tasks, or one a client.

    The run begins jointly, for ``trial`` turns, which last from one evaluation to the next. In the
    first trial clients with the same tasks go on from a copy of the backbone in one turn, all
    jointly in the next, and so on, ``trial`` turns each. A task stays joint if its validation
    metric was better so in every pair of turns, and goes with its like otherwise. In the second
    trial, twice as late in the run, each client goes on from a copy of the backbone that it has; a
    task goes alone if that was better in every pair. A task stays where it is if nothing was
    measured. A trial that the run cannot end does not begin; a single task has no first one.

    A client goes the way of most of its tasks, of equals of that which shares more. Backbones that
    no task wants go. Heads are the clients' own, and follow every turn. Half of a trial's rounds
    are lost, and what is decided by few validation data may be wrong: with its like is where a task
    goes that gains by neither.

    Backbone 0 is the joint one. Who comes later starts from what it would have without a trial.
    Where the run's tasks change, as nodes come and go, it begins anew from backbone 0.

    The state holds ``tasks``, what they are; ``pick`` ``[tasks]`` int64, their ways; ``rival``, the
    way that is or was tried last; ``since``, the round before its trial or the first round;
    ``sets`` ``[S, tasks]`` bool, the sets of tasks so far, and ``row`` ``[S]`` int64, their
    backbones; ``place`` ``[2, ids]`` int64, client ids, and the backbones of their own; and in a
    trial ``rivals`` ``[tasks]``, the last metrics, where they are ``defined``, and how many
    ``pairs`` of turns were measured, and in how many the rival was ``ahead`` and ``behind``,
    ``[tasks]`` each.

    Args:
        trial: turns of each way in a trial.
    """

    by_part = False  # its backbones are whole

    def __init__(self, trial: Count = 3) -> None:
        super().__init__()
        self.trial = trial

    def check_config(self, config: Config, method: LocalMethod) -> None:
        super().check_config(config, method)
        first = 3 * self.trial * config.evaluate.every
        if config.rounds <= first:
            raise UserError(
                f"strategy auto decides after {first} rounds (3 * trial * evaluate.every), "
                f"and the run has {config.rounds}: raise rounds, or lower strategy.options.trial "
                "or evaluate.every"
            )
        if not config.data.valid_fraction:
            raise UserError("strategy auto goes by validation data: set data.valid_fraction")
        if config.evaluate.fraction < 1:
            raise UserError(
                "strategy auto compares rounds by the same clients: leave out evaluate.fraction"
            )

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        return self.rows(round, clients, tasks) if as_before(self) else torch.zeros_like(clients)

    def merge(self, updates: Updates) -> Steps:
        if (anew := begin_anew(self, updates)) is not None:
            return anew
        self.begin(updates)
        rows = self.join(updates, len(updates.backbones))
        count = max(len(updates.backbones), int(rows.max()) + 1)
        of, moves = torch.arange(count), updates.means_of(rows, count)
        of[rows] = updates.received  # a new backbone moves from what its clients received
        if "pairs" in self.state:
            self.listen(updates)
        elif self.due(updates.round):
            self.challenge(updates.round)
        picks = zip(updates.task_names, self.state["pick"].tolist(), strict=True)
        self.report |= {f"way of {name}": float(way) for name, way in picks}
        left = self.prune(updates, count)
        return Steps(of[left], moves[left])

    def begin(self, updates: Updates) -> None:
        """Let all tasks be joint where nothing is known."""
        count, length = len(updates.task_names), rounds_of_a_turn(self)
        self.state.setdefault("pick", torch.full((count,), JOINT))
        if "rival" not in self.state:
            self.state["rival"] = torch.tensor(JOINT if count > 1 else ALIKE)  # one task: all are
            rounds, last = rounds_of_the_run(self), 7 * self.trial * length
            if count == 1 and rounds is not None and rounds <= last:
                log.warning(
                    "strategy auto tries a single task alone until round %d, and the run has %d: "
                    "nothing is decided in it",
                    last,
                    rounds,
                )
        self.state.setdefault("since", torch.tensor((updates.round - 1) // length * length))
        self.state.setdefault("sets", torch.zeros(0, count, dtype=torch.bool))
        self.state.setdefault("row", torch.zeros(0, dtype=torch.int64))
        self.state.setdefault("place", nobody())

    def challenge(self, round: int) -> None:
        """Let the next way be tried after ``round``."""
        self.state["since"] = torch.tensor(round)
        self.state["rival"] = self.state["rival"] + 1
        for name in ("pairs", "ahead", "behind"):
            self.state[name] = torch.zeros_like(self.state["pick"])

    def turns(self) -> Turns:
        """Return who trains when in the present trial."""
        return Turns(int(self.state["since"]), rounds_of_a_turn(self), 2, self.trial)

    def due(self, round: int) -> bool:
        """Say whether a trial begins after ``round``."""
        rival, since, rounds = self.state["rival"], self.state["since"], rounds_of_the_run(self)
        turns = Turns(round, rounds_of_a_turn(self), 2, self.trial)
        wait = (1 if rival == JOINT else 5) * self.trial * turns.length
        passed, too_late = int(round - since), rounds is not None and turns.last >= rounds
        return bool(rival < ALONE) and passed >= wait and not passed % turns.length and not too_late

    def ways(self, round: int, tasks: Tensor) -> Tensor:
        """``[n]`` int64, the way of clients with ``tasks`` ``[n, T]`` in a round."""
        rivals = "pairs" in self.state and self.turns().way(round) == RIVAL
        return self.state["rival"].expand(len(tasks)) if rivals else self.picked(tasks)

    def picked(self, tasks: Tensor) -> Tensor:
        """``[n]`` int64, the way of most of each client's ``tasks`` ``[n, T]``."""
        return most_of(self.state["pick"], tasks)

    def rows(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        """``[n]`` int64, the backbones of clients in a round: of who has none yet, what it had."""
        alike = self.rows_alike(tasks)
        before = torch.where(self.picked(tasks) == JOINT, 0, alike)
        own = known_of(clients, self.state["place"], 0)
        rows = torch.stack([torch.zeros_like(alike), alike, torch.where(own > 0, own, before)])
        return rows.gather(0, self.ways(round, tasks)[None])[0]

    def rows_alike(self, tasks: Tensor) -> Tensor:
        """``[n]`` int64, the backbones of the sets of tasks ``[n, T]``; 0: none yet."""
        same = (tasks[:, None] == self.state["sets"]).all(2)
        found = torch.cat([same, torch.ones(len(tasks), 1, dtype=torch.bool)], 1).long().argmax(1)
        return torch.cat([self.state["row"], torch.zeros(1, dtype=torch.int64)])[found]

    def join(self, updates: Updates, count: int) -> Tensor:
        """``[n]`` int64, the backbones that clients move, beyond ``count`` of them new ones."""
        ways, place = self.ways(updates.round, updates.tasks), self.state["place"]
        sets = updates.tasks[ways == ALIKE].unique(dim=0)
        new = sets[self.rows_alike(sets) == 0]
        self.state["sets"] = torch.cat([self.state["sets"], new])
        self.state["row"] = torch.cat([self.state["row"], count + torch.arange(len(new))])
        alone = updates.clients[ways == ALONE]
        strangers = alone[known_of(alone, place, 0) == 0]
        own = count + len(new) + torch.arange(len(strangers))
        self.state["place"] = noted(place, strangers, own)
        return self.rows(updates.round, updates.clients, updates.tasks)

    def listen(self, updates: Updates) -> None:
        """Hear how the last turn ended; after the trial, let every task pick its way."""
        turns, state, valid = self.turns(), self.state, validated(self, updates)
        measured = turns.measured(updates.round, updates.evaluated)
        if measured == RIVAL:
            state["rivals"], state["defined"] = valid.nan_to_num(), valid.isfinite()
        elif measured == PRESENT and "rivals" in state:
            rivals, both = state.pop("rivals"), state.pop("defined") & valid.isfinite()
            state["pairs"] += both
            state["ahead"] += both & (rivals > valid)
            state["behind"] += both & (rivals < valid)
        if updates.round > turns.last:
            pairs, ahead, behind = (state.pop(name) for name in ("pairs", "ahead", "behind"))
            for name in ("rivals", "defined"):
                state.pop(name, None)
            if not pairs.any():
                log.warning("strategy auto has no validation metric to go by; all stays as it is")
            alone = state["rival"] == ALONE
            won = (ahead == pairs) & (pairs > 0) if alone else behind < pairs
            state["pick"] = torch.where(won, state["rival"], state["pick"])

    def prune(self, updates: Updates, count: int) -> Tensor:
        """Return ``[K']`` int64, the backbones that are wanted still; number them anew."""
        tried = int(self.state["rival"]) if "pairs" in self.state else JOINT
        sets, row, place = (self.state[name] for name in ("sets", "row", "place"))
        if tried != ALIKE:
            wanted = self.picked(sets) == ALIKE
            sets, row = sets[wanted], row[wanted]
        if tried != ALONE:
            others = updates.clients[self.picked(updates.tasks) != ALONE]
            anybody = bool((self.state["pick"] == ALONE).any())
            place = place[:, ~torch.isin(place[0], others)] if anybody else nobody()
        left = torch.zeros(count, dtype=torch.bool)
        left[0] = left[row] = left[place[1]] = True
        number = left.long().cumsum(0) - 1
        self.state["sets"], self.state["row"] = sets, number[row]
        self.state["place"] = torch.stack([place[0], number[place[1]]])
        return left.nonzero().squeeze(1)
