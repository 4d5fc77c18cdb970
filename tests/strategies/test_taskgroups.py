"""Task groups: trials that validation data decide, by hand and in runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedjoint.config.scenario import scenario_config
from fedjoint.experiments.grouping import cuts
from fedjoint.server.strategy import checked_merge
from fedjoint.simulation import resume, simulate
from fedjoint.strategies._turns import Turns
from fedjoint.strategies.taskgroups import TaskGroups, most_of, partition

A, B, C = torch.eye(3, dtype=torch.bool)  # clients of one task
ANGLES = torch.deg2rad(torch.tensor([0.0, 20.0, 150.0]))


def updates(wrap, round, strategy=None, backbones=None, valid=(0.5, 0.5, 0.5)):
    """Return updates of a client of each task, the third of which goes another way."""
    tasks = torch.stack([A, B, C])
    found = replace(
        wrap(torch.stack([ANGLES.cos(), ANGLES.sin()], 1), round),
        tasks=tasks,
        weights=torch.full((3,), 1 / 3),
        evaluation={"valid": dict(zip("abc", valid, strict=True))},
        evaluated=round - 1,
    )
    if backbones is None:
        return found
    received = strategy.receives(round, found.clients, tasks)
    return replace(found, backbones=backbones, received=received)


def moved(before, of, steps):
    return before[of] + steps


def begun(wrap):
    """Return a strategy in its first trial, and the backbones after round 2, when it began."""
    strategy, start = TaskGroups(every=2, trial=1), updates(wrap, 1).backbone[None]
    after = start + checked_merge(strategy, updates(wrap, 1)).steps
    of, steps = checked_merge(strategy, replace(updates(wrap, 2), backbones=after))
    assert of.tolist() == [0, 0, 0]  # all, and the two groups of the proposal
    assert strategy.state["proposed"].tolist() == [0, 0, 1]
    return strategy, moved(after, of, steps)


@pytest.mark.parametrize(
    ("proposal", "present", "stays"),
    [
        ((0.6, 0.6, 0.9), (0.6, 0.5, 0.6), True),  # two of three are better
        ((0.6, 0.4, 0.9), (0.5, 0.5, 0.9), False),  # one is better and one worse
        ((0.4, 0.4, 0.9), (0.5, 0.5, 0.5), False),
        ((None, 0.4, 0.9), (0.5, None, 0.5), True),  # of what nobody knows, neither is better
    ],
)
def test_the_better_partition_s_backbones_stay(wrap, proposal, present, stays):
    strategy, backbones = begun(wrap)
    trial = updates(wrap, 3, strategy, backbones)
    assert trial.received.tolist() == [1, 1, 2]
    backbones = backbones + checked_merge(strategy, trial).steps
    last = updates(wrap, 4, strategy, backbones, proposal)
    assert last.received.tolist() == [0, 0, 0]
    backbones = backbones + checked_merge(strategy, last).steps
    decided = updates(wrap, 5, strategy, backbones, present)
    of, steps = checked_merge(strategy, decided)
    assert of.tolist() == ([1, 2] if stays else [0])
    assert strategy.state["group"].tolist() == ([0, 0, 1] if stays else [0, 0, 0])
    assert "proposed" not in strategy.state and not strategy.state["seen"].any()
    # Round 3 moved the proposal's, rounds 4 and 5 the other.
    g = decided.matrix
    begin = decided.backbone + 2 * g.mean(0)
    expected = [begin + g[:2].mean(0), begin + g[2]] if stays else [begin + 2 * g.mean(0)]
    torch.testing.assert_close(moved(backbones, of, steps), torch.stack(expected))


def test_after_a_refusal_fewer_groups_are_tried(wrap):
    strategy, _ = begun(wrap)
    strategy.state |= {"group": torch.tensor([0, 0, 1]), "finer": torch.tensor(False)}
    del strategy.state["proposed"]
    backbones = torch.zeros(2, 2)
    of, _ = checked_merge(strategy, updates(wrap, 4, strategy, backbones))
    assert of.tolist() == [0, 1, 0] and strategy.state["proposed"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_partitions_are_those_of_the_comparison_s_groups(seed):
    """experiments.grouping cuts the same tree in another way."""
    g = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)).double()
    g = torch.nn.functional.normalize(g)
    cosines, names = g @ g.T, list("abcdef")
    for count, expected in enumerate(cuts(cosines.numpy(), names), 1):
        found = partition(cosines, count)
        groups = [
            [n for n, own in zip(names, found.tolist(), strict=True) if own == k]
            for k in range(count)
        ]
        assert groups == sorted(expected)
    assert partition(cosines, 7) is None and partition(cosines, 0) is None


def test_a_client_of_several_groups_has_that_of_most_of_its_tasks():
    group = torch.tensor([0, 1, 1, 2])
    tasks = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]])
    assert most_of(group, torch.from_numpy(tasks.astype(bool))).tolist() == [1, 0, 2, 0, 1]


def test_ways_take_turns_between_evaluations():
    turns = Turns(since=4, length=2, ways=2, each=2)
    way = [turns.way(round) for round in range(4, 14)]
    assert way == [None, 0, 0, 1, 1, 0, 0, 1, 1, None] and turns.last == 12
    # An evaluation after rounds 6, 8, 10 and 12 is seen in the rounds after these.
    measured = [turns.measured(round, round - 1) for round in range(4, 15)]
    assert measured == [None, None, None, 0, None, 1, None, 0, None, 1, None]
    assert turns.measured(7, 4) is None  # nobody replied to the one after round 6


SETTINGS = ["engine.name=inline", "diagnostics.every=0", "strategy.name=taskgroups", "rounds=30"]
SETTINGS += ["strategy.options.every=6", "strategy.options.trial=1"]


def run(tmp_path, degrees, *more):
    angle = f"data.source.options.conflict_degrees={degrees}"
    return simulate(
        scenario_config("conflict", [*SETTINGS, angle, f"output.dir={tmp_path}", *more])
    )


@pytest.mark.parametrize("every", [1, 3])
def test_tasks_in_conflict_are_told_apart(tmp_path, every):
    result = run(tmp_path, 120, f"evaluate.every={every}")
    # One backbone gets 0.25 at best; see the README.
    assert min(result.metrics["test"].values()) > 0.8
    assert result.records[-1].strategy["backbones"] == 2


def test_a_trial_goes_on_where_it_was(tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record.round == 7:  # after the proposal's turn
            raise Stop

    whole = run(tmp_path, 120, "rounds=14")
    settings = [*SETTINGS, "data.source.options.conflict_degrees=120", "rounds=14"]
    settings += [f"output.dir={tmp_path}", "output.checkpoint_every=1", "name=cut"]
    with pytest.raises(Stop):
        simulate(scenario_config("conflict", settings), callbacks=[stop])
    (folder,) = tmp_path.glob("cut-*")
    rest = resume(folder)
    assert rest.metrics == whole.metrics
    assert all(torch.equal(rest.backbone[n], t) for n, t in whole.backbone.items())


def test_no_trial_begins_that_the_run_s_end_would_cut_off(tmp_path):
    short = run(tmp_path, 120, "rounds=8")  # it would end in round 8, and be decided in round 9
    assert all("backbones" not in record.strategy for record in short.records)
