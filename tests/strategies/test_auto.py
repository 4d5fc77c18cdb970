"""Auto: three ways take turns, and each task keeps the one of its best validation metric."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.experiments.ways import independent
from fedjoint.server.strategy import checked_merge, make_strategy
from fedjoint.simulation import simulate
from fedjoint.strategies._places import known_of
from fedjoint.strategies.auto import ALIKE, ALONE, JOINT, Auto

#: Clients 0, 3, 6 and 9, with the tasks a, a, b, and a and c.
TASKS = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1]]).bool()


class Run:
    """Rounds of one strategy, with what clients receive and what was measured."""

    def __init__(self, wrap, **options):
        self.strategy, self.wrap = Auto(**options), wrap
        self.backbones = wrap(torch.zeros(4, 2)).backbone[None]
        self.round, self.received = 0, []

    def go(self, valid=None, rows=(0, 1, 2, 3)):
        """Run a round; ``valid`` is of the evaluation before it. Return the updates."""
        self.round, rows = self.round + 1, list(rows)
        matrix = torch.randn(4, 2, generator=torch.Generator().manual_seed(self.round))
        updates = self.wrap(matrix, self.round)
        received = torch.zeros(len(rows), dtype=torch.int64)
        if len(self.backbones) > 1:
            received = self.strategy.receives(self.round, updates.clients[rows], TASKS[rows])
        updates = replace(
            updates,
            matrix=matrix[rows],
            clients=updates.clients[rows],
            tasks=TASKS[rows],
            weights=torch.full((len(rows),), 1 / len(rows)),
            backbones=self.backbones,
            received=received,
            evaluation={"valid": dict(zip("abc", valid, strict=True))} if valid else {},
            evaluated=self.round - 1 if valid else 0,
        )
        of, steps = checked_merge(self.strategy, updates)
        self.backbones = self.backbones[of] + steps
        self.received.append(received.tolist())
        return updates


def place_of(run, client):
    return known_of(torch.tensor([client]), run.strategy.state["place"], 0).item()


def test_every_way_has_backbones_of_its_own_from_one_start(wrap):
    run = Run(wrap, trial=2)
    start = run.backbones[0].clone()
    first = run.go().matrix  # jointly
    assert len(run.backbones) == 1 + 3 + 4  # the sets are {a}, {b}, {a, c}
    torch.testing.assert_close(run.backbones[0], start + first.mean(0))
    assert torch.equal(run.backbones[1:], start.expand(7, -1))
    second = run.go().matrix  # with those of the same tasks
    alike = run.received[-1]
    assert alike[0] == alike[1] and len({*alike}) == 3 and 0 not in alike
    torch.testing.assert_close(run.backbones[alike[0]], start + second[:2].mean(0))
    torch.testing.assert_close(run.backbones[alike[3]], start + second[3])
    third = run.go().matrix  # alone
    alone = run.received[-1]
    assert len({*alone, *alike, 0}) == 8
    torch.testing.assert_close(run.backbones[alone], start + third)
    fourth = run.go().matrix
    assert run.received[-1] == [0] * 4
    torch.testing.assert_close(run.backbones[0], start + first.mean(0) + fourth.mean(0))


#: Of the tasks a, b and c, after the turns of the three ways.
MEASURED = {JOINT: (0.5, 0.7, 0.4), ALIKE: (0.8, 0.7, 0.4), ALONE: (0.6, 0.6, None)}


def decided(wrap):
    run = Run(wrap, trial=1)
    run.go()
    run.go(MEASURED[JOINT])
    run.go(MEASURED[ALIKE])
    run.go(MEASURED[ALONE])
    return run


def test_a_task_takes_its_best_way_and_of_equals_the_one_that_shares_more(wrap):
    run = decided(wrap)
    assert run.strategy.state["pick"].tolist() == [ALIKE, JOINT, JOINT]
    assert len(run.backbones) == 1 + 3  # nobody is alone any more
    run.go()
    # Whoever has a and c goes the way of most, of equals the first.
    a, other, b, both = run.received[-1]
    assert a == other > 0 and b == both == 0
    assert "valid" not in run.strategy.state


def test_who_comes_later_starts_from_the_joint_backbone(wrap):
    run = Run(wrap, trial=1)
    run.go(rows=[0, 2])
    run.go(MEASURED[JOINT], rows=[0, 1, 2])
    run.go(MEASURED[ALIKE], rows=[0, 1])
    assert run.received[-1][1] == place_of(run, 3) > 0
    run.go(MEASURED[ALONE], rows=[3])
    before = run.backbones[0].clone()
    last = run.go(rows=[3])
    assert run.received[-1] == [0]
    torch.testing.assert_close(run.backbones[0], before + last.matrix[0])


def test_who_comes_in_the_turn_of_another_way_leaves_the_joint_backbone_alone(wrap):
    run = Run(wrap, trial=2)
    run.go(rows=[0, 2])
    run.go(rows=[0, 2])
    before = run.backbones[0].clone()
    third = run.go(rows=[0, 1, 2])  # alone
    assert run.received[-1][1] == 0
    assert torch.equal(run.backbones[0], before)
    place = place_of(run, 3)
    torch.testing.assert_close(run.backbones[place], before + third.matrix[1])


def test_a_way_that_was_measured_less_often_is_not_the_worse_for_it(wrap):
    run = Run(wrap, trial=4)
    for round in range(1, 14):
        # The last evaluation in a turn of JOINT is missing, which is the best by far.
        ways = [(0.9, 0.9, 0.9), (0.6, 0.6, 0.6), (0.5, 0.5, 0.5)]
        run.go(None if round in (1, 11) else ways[(round - 2) % 3])
    assert run.strategy.state["pick"].tolist() == [JOINT] * 3


@pytest.mark.parametrize("trial", [2, 3, 4])
def test_the_second_half_of_the_turns_counts(wrap, trial):
    run = Run(wrap, trial=trial)
    heard = np.zeros((3, 3))
    for round in range(1, 3 * trial + 2):
        valid = tuple(np.random.default_rng(round).random(3)) if round > 1 else None
        turn, way = divmod(round - 2, 3)
        if round > 1 and turn >= (trial - 1) / 2:
            heard[way] += valid
        run.go(valid)
    assert run.strategy.state["pick"].tolist() == heard.argmax(0).tolist()


SETTINGS = ["rounds=40", "engine.name=inline", "diagnostics.every=0"]


def test_tasks_in_conflict_end_apart_and_no_worse_than_alone(tmp_path):
    settings = [*SETTINGS, "data.source.options.conflict_degrees=120", f"output.dir={tmp_path}"]
    config = scenario_config("conflict", [*settings, "strategy.name=auto"])
    found, alone = simulate(config), simulate(independent(config))
    picks = found.records[-1].strategy
    assert JOINT not in (picks["way of task0"], picks["way of task1"])
    for task, value in found.metrics["test"].items():
        assert value > alone.metrics["test"][task] - 0.02


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("rounds=12", "for 12 rounds .* the run has 12: raise rounds"),
        ("evaluate.every=4", "for 48 rounds"),
        ("data.valid_fraction=0", "set data.valid_fraction"),
    ],
)
def test_a_run_without_an_end_of_the_trial_is_refused(setting, says):
    config = scenario_config("conflict", [*SETTINGS, "strategy.name=auto", setting])
    with pytest.raises(UserError, match=says):
        make_strategy(config)
