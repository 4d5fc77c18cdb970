"""Auto: ways of sharing take turns, and each task takes the one that its validation data like."""

from dataclasses import replace

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.experiments.ways import independent
from fedjoint.server.strategy import checked_merge, circumstances, make_strategy
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


def test_sets_of_tasks_go_on_from_a_copy_in_turns_with_all_jointly(wrap):
    run = Run(wrap, trial=2)
    moved = run.backbones[0] + sum(run.go().matrix.mean(0) for _ in range(2))
    torch.testing.assert_close(run.backbones, moved[None])
    first = run.go().matrix  # the sets are {a}, {b}, {a, c}
    assert run.received[-1] == [0] * 4 and len(run.backbones) == 1 + 3
    second = run.go().matrix
    assert run.received[-1] == [0] * 4
    third = run.go().matrix
    alike = run.received[-1]
    assert alike[0] == alike[1] and len({*alike}) == 3 and 0 not in alike
    torch.testing.assert_close(run.backbones[0], moved + second.mean(0))
    both = first[:2].mean(0) + third[:2].mean(0)
    torch.testing.assert_close(run.backbones[alike[0]], moved + both)
    torch.testing.assert_close(run.backbones[alike[3]], moved + first[3] + third[3])


#: Of the tasks a, b and c, after a turn of those alike, and one of all.
MEASURED = {ALIKE: (0.5, 0.7, None), JOINT: (0.8, 0.6, None)}


def decided(wrap, trial=1):
    """Return a run in which a stays joint, b goes with its like, and c stays for want of news."""
    run = Run(wrap, trial=trial)
    for _ in range(trial):
        run.go()
    for at in range(2 * trial):
        run.go(MEASURED[(ALIKE, JOINT)[(at - 1) % 2]] if at else None)
    run.go(MEASURED[JOINT])
    return run


@pytest.mark.parametrize("trial", [1, 3])
def test_a_task_stays_joint_only_where_that_was_better(wrap, trial):
    run = decided(wrap, trial)
    assert run.strategy.state["pick"].tolist() == [JOINT, ALIKE, JOINT]
    run.go()
    a, other, b, both = run.received[-1]
    assert a == other == both == 0 and b > 0
    assert len(run.backbones) == 2  # nobody wants those of the other sets
    assert not {"pairs", "rivals", "ahead", "behind"} & {*run.strategy.state}


@pytest.mark.parametrize(("last", "way"), [(0.6, ALIKE), (0.9, JOINT)])
def test_one_pair_of_turns_without_it_is_enough_to_part(wrap, last, way):
    run = Run(wrap, trial=2)
    for valid in (None, None, None, 0.5, 0.8, 0.7, last):
        run.go(valid and (valid,) * 3)
    assert run.strategy.state["pick"].tolist() == [way] * 3


@pytest.mark.parametrize(("alone", "way"), [(0.9, ALONE), (0.7, ALIKE), (None, ALONE)])
def test_a_task_goes_alone_only_where_that_was_better_in_every_pair(wrap, alone, way):
    run = Run(wrap, trial=2)
    for round in range(1, 7 * 2 + 4):
        # Rounds 3 to 6 are the first trial, 13 to 16 the second.
        valid = {4: 0.6, 5: 0.5, 6: 0.6, 7: 0.5, 14: 0.8, 15: 0.7, 16: alone, 17: 0.7}.get(round)
        start = run.backbones[run.strategy.rows_alike(TASKS)] if round == 13 else None
        matrix = run.go((valid,) * 3 if valid or round == 16 else None).matrix
        if round == 13:
            own = run.backbones[[place_of(run, client) for client in (0, 3, 6, 9)]]
            torch.testing.assert_close(own, start + matrix)
    assert run.strategy.state["pick"].tolist() == [way] * 3
    assert len(run.backbones) == 1 + (4 if way == ALONE else 3)


def test_backbones_that_no_task_wants_go(wrap):
    run = Run(wrap, trial=1)
    apart, alone = (0.9, 0.9, 0.9), (0.9, 0.5, 0.5)
    for valid in (None, None, apart, (0.5, 0.5, 0.5), None, None, None, alone, (0.5, 0.5, 0.5)):
        run.go(valid)
    assert run.strategy.state["pick"].tolist() == [ALONE, ALIKE, ALIKE]
    run.go()
    # Who has a alone is alone; who has a and c goes the way that shares more.
    assert len({*run.received[-1]}) == 4 and len(run.backbones) == 1 + 2 + 2
    assert place_of(run, 0) and place_of(run, 3) and not place_of(run, 6) and not place_of(run, 9)


def test_a_single_task_is_tried_alone_and_not_twice_jointly(wrap):
    strategy = Auto(trial=1)
    whole = wrap(torch.ones(4, 2))
    updates = replace(whole, tasks=torch.ones(4, 1, dtype=torch.bool), task_names=("a",))
    counts = [
        len(checked_merge(strategy, replace(updates, round=round)).of) for round in range(1, 7)
    ]
    assert counts == [1] * 5 + [5]  # the clients' own come in the rival's first turn


def test_who_comes_later_starts_from_what_it_would_have(wrap):
    run = Run(wrap, trial=1)
    run.go(rows=[0])
    run.go(rows=[0])  # alike
    before = run.backbones[1].clone()
    run.go(MEASURED[ALIKE], rows=[0])
    run.go((0.4, 0.4, 0.4), rows=[0, 2])
    assert run.received[-1] == [0, 0]  # what is decided holds from the next round on
    run.go(rows=[0, 1, 2])
    a, other, b = run.received[-1]
    assert a == other > 0 and b == 0 and len(run.backbones) == 3
    assert not torch.equal(run.backbones[a], before)
    run.go(rows=[0, 2])
    joint, alike = run.backbones[0].clone(), run.backbones[a].clone()
    last = run.go(rows=[1, 3])  # alone, and nobody has seen the other's tasks
    assert run.received[-1] == [a, 0]
    assert torch.equal(run.backbones[0], joint) and torch.equal(run.backbones[a], alike)
    torch.testing.assert_close(run.backbones[place_of(run, 3)], alike + last.matrix[0])
    torch.testing.assert_close(run.backbones[place_of(run, 9)], joint + last.matrix[1])


def test_what_nobody_measures_stays_as_it_is_and_says_so(wrap, caplog):
    run = Run(wrap, trial=1)
    for _ in range(5):
        run.go()
    assert run.strategy.state["pick"].tolist() == [JOINT] * 3
    assert "no validation metric to go by" in caplog.text


def test_a_trial_begins_late_where_a_run_goes_on(wrap):
    run, settings = Run(wrap), {"strategy": {"name": "auto", "options": {"trial": 1}}}
    run.strategy = make_strategy(check({"rounds": 8, **settings}))
    circumstances(run.strategy).rising = dict.fromkeys("abc", True)
    for _ in range(8):
        run.go((0.5,) * 3 if run.round else None)
    assert "pairs" not in run.strategy.state  # it would have begun after round 6
    circumstances(run.strategy).config = check({"rounds": 20, **settings})
    run.go((0.5,) * 3)
    assert "pairs" in run.strategy.state


def test_a_turn_that_nobody_measured_leaves_its_pair_out(wrap):
    run = Run(wrap, trial=2)
    for valid in (None, None, None, None, 0.1, 0.5, 0.8):
        run.go(valid and (valid,) * 3)
    assert run.strategy.state["pick"].tolist() == [JOINT] * 3


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
        ("rounds=9", "after 9 rounds .* the run has 9: raise rounds"),
        ("evaluate.every=5", "after 45 rounds"),
        ("data.valid_fraction=0", "set data.valid_fraction"),
        ("evaluate.fraction=0.5", "leave out evaluate.fraction"),
    ],
)
def test_a_run_without_an_end_of_the_trial_is_refused(setting, says):
    config = scenario_config("conflict", [*SETTINGS, "strategy.name=auto", setting])
    with pytest.raises(UserError, match=says):
        make_strategy(config)
