"""Task groups: a backbone for each group of tasks, which validation data re-decide over time."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster import hierarchy
from torch import Tensor

from fedjoint.options import Count
from fedjoint.server.steps import Steps
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._tasks import as_before, begin_anew, most_of
from ._turns import Measured, Turns, rounds_of_a_turn, rounds_of_the_run, validated


class TaskGroups(JointStrategy):
    """A backbone for each group of tasks, decided in the run and re-decided over time.

    All tasks begin in one group. Every ``every`` rounds another partition is tried: the tree of
    average linkage on the tasks' distances, one less the mean cosine of their updates since the
    last decision, cut into one group more than there are; after a partition was refused, into one
    less, and so on in turn. Each group of it starts from the backbone that most of its tasks have.
    Both partitions then train in turns, from one evaluation to the next, the present one last. The
    new one stays if it is better on the validation metrics, by their mean over ``trial`` turns, for
    more tasks than it is worse for, of those that would have other companions. Then the other's
    backbones go. A trial's cost is the rounds of the partition that goes, and one to decide.

    A client has one backbone: that of the group with most of its tasks, the first of equals.

    Where the run's tasks change, as nodes come and go, it begins anew from backbone 0.

    The state holds ``group`` ``[tasks]`` int64; ``cosine`` and ``seen`` ``[tasks, tasks]``, the sum
    of cosines and of how many; ``since``, the round of the last decision, or before the trial;
    ``finer``, whether to try more groups; and in a trial ``proposed`` ``[tasks]`` int64, and the
    sums of metrics of that and of the present partition.

    Args:
        every: least number of rounds from a decision to the next trial.
        trial: turns of each partition in a trial.

    Paper: after Zhuang et al., "MAS: Towards Resource-Efficient Federated Multiple-Task
    Learning", ICCV 2023, https://arxiv.org/abs/2307.11285, and Cai et al., "Many-Task Federated
    Learning: A New Problem Setting and A Simple Baseline" (MaT-FL), CVPRW 2023
    """

    per_client = False
    by_part = False  # its groups have whole backbones
    omits = "MAS's affinity by lookahead, MaT-FL's weights between groups"

    def __init__(self, every: Count = 10, trial: Count = 2) -> None:
        super().__init__()
        self.every = every
        self.trial = trial

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        if not as_before(self):
            return torch.zeros_like(clients)
        group, proposed = self.state["group"], self.state.get("proposed")
        if proposed is not None and self.turns().way(round) == 0:
            return int(group.max()) + 1 + most_of(proposed, tasks)
        return most_of(group, tasks)

    def merge(self, updates: Updates) -> Tensor | Steps:
        if (anew := begin_anew(self, updates)) is not None:
            return anew
        count = len(updates.task_names)
        self.state.setdefault("group", torch.zeros(count, dtype=torch.int64))
        self.state.setdefault("since", torch.tensor(0))
        self.state.setdefault("finer", torch.tensor(True))
        for name in ("cosine", "seen"):
            self.state.setdefault(name, torch.zeros(count, count, dtype=torch.float64))
        self.compare(updates.by_task())
        moves = updates.means()
        if "proposed" in self.state:
            found = self.judge(updates, moves)
        else:
            found = self.propose(updates.round, moves)
        self.report |= {
            f"group of {n}": float(self.state["group"][t]) for t, n in enumerate(updates.task_names)
        }
        return found

    def turns(self) -> Turns:
        """Return the present trial's turns; way 0 is the proposal."""
        return Turns(int(self.state["since"]), rounds_of_a_turn(self), 2, self.trial)

    def compare(self, tasks: Updates) -> None:
        """Add the cosines of the tasks' mean updates to what is known of them."""
        at, length = tasks.clients, tasks.gram.diagonal().clamp(min=0).sqrt()
        products = torch.outer(length, length)
        known = products > 0
        cosine = torch.where(known, tasks.gram / products.where(known, torch.ones(())), 0.0)
        for name, new in (("cosine", cosine), ("seen", known)):
            self.state[name][at[:, None], at] += new.to(self.state[name])

    def propose(self, round: int, moves: Tensor) -> Tensor | Steps:
        """Begin a trial where one is due; return the steps ``moves`` ``[K, P]``, or more."""
        group, rounds = self.state["group"], rounds_of_the_run(self)
        turns = Turns(round, rounds_of_a_turn(self), 2, self.trial)
        too_late = rounds is not None and turns.last >= rounds
        if round % turns.length or round - int(self.state["since"]) < self.every or too_late:
            return moves
        count = int(group.max()) + (2 if self.state["finer"] else 0)
        proposed = partition(self.state["cosine"] / self.state["seen"].clamp(min=1), count)
        if proposed is None or torch.equal(proposed, group):
            self.state["finer"] = ~self.state["finer"]
            return moves
        self.state["proposed"] = proposed
        self.state["since"] = torch.tensor(round)
        starts = [group[proposed == one].mode().values for one in range(count)]
        of = torch.cat([torch.arange(len(moves)), torch.stack(starts)])
        return Steps(of, moves[of])

    def judge(self, updates: Updates, moves: Tensor) -> Tensor | Steps:
        """Hear of a trial; once it is over, keep the better partition's backbones alone."""
        turns, heard = self.turns(), Measured(self.state, 2, len(updates.task_names))
        if (measured := turns.measured(updates.round, updates.evaluated)) is not None:
            heard.add(measured, validated(self, updates))
        if updates.round <= turns.last:
            return moves
        group, proposed = self.state["group"], self.state.pop("proposed")
        of_one, of_other = (own[:, None] == own for own in (proposed, group))
        moved = (of_one != of_other).any(1)
        valid = heard.close()
        difference = (valid[0] - valid[1])[moved]  # of what is undefined, neither is better
        better = int((difference > 0).sum()) > int((difference < 0).sum())
        self.state["since"] = torch.tensor(updates.round)
        for name in ("cosine", "seen"):
            self.state[name].zero_()
        count = int(group.max()) + 1
        if better:
            self.state["group"] = proposed
            of = torch.arange(count, len(moves))
        else:
            self.state["finer"] = ~self.state["finer"]
            of = torch.arange(count)
        return Steps(of, moves[of])


def partition(cosines: Tensor, count: int) -> Tensor | None:
    """``[T]`` int64, tasks in ``count`` groups, the first task's being 0; None: no such partition.

    Args:
        cosines: ``[T, T]`` of the tasks' updates.
        count: of groups.
    """
    size = len(cosines)
    if not 1 <= count <= size or size < 2:
        return None
    distance = 1 - cosines[tuple(torch.triu_indices(size, size, 1))].numpy()
    labels = hierarchy.cut_tree(hierarchy.average(distance), count)[:, 0]
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[place.reshape(-1)])
