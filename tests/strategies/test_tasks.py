"""Strategies whose state is about tasks begin anew where these are others."""

from dataclasses import replace

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.server.strategy import checked_merge, circumstances, make_strategy

OPTIONS = {
    "taskgroups": {"every": 1, "trial": 1},
    "recon": {"after": 1, "share": 1.0},
    "auto": {"trial": 1},
}


def opposed(wrap, round=1):
    g = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [0.2, -1.0]])
    return replace(wrap(g, round), tasks=torch.eye(3, dtype=torch.bool))


@pytest.mark.parametrize("name", OPTIONS)
def test_where_the_tasks_change_all_go_on_from_the_first_backbone(wrap, name):
    strategy = make_strategy(check({"strategy": {"name": name, "options": OPTIONS[name]}}))
    circumstances(strategy).rising = dict.fromkeys("abc", True)
    for round in (1, 2) if name == "auto" else (1,):  # its first trial begins in the second
        first = opposed(wrap, round)
        of, steps = checked_merge(strategy, first)
    assert len(of) > 1
    backbones, everyone = first.backbone + steps, (2, first.clients, first.tasks)
    assert len(strategy.receives(*everyone).unique()) == (2 if name == "taskgroups" else 3)
    # The node with the task c leaves, and one with d comes.
    circumstances(strategy).rising = dict.fromkeys("abd", True)
    assert not strategy.receives(*everyone).any()
    changed = replace(opposed(wrap, 3), task_names=("a", "b", "d"), backbones=backbones)
    of, steps = checked_merge(strategy, changed)
    assert of.tolist() == [0]
    torch.testing.assert_close(steps[0], changed.mean())
    assert list(strategy.state) == ["tasks"]
    later = [replace(opposed(wrap, round), task_names=("a", "b", "d")) for round in (4, 5)]
    assert any(len(checked_merge(strategy, updates).of) > 1 for updates in later)


def test_layers_are_scored_for_as_many_rounds_again(wrap):
    strategy = make_strategy(check({"strategy": {"name": "recon", "options": {"after": 2}}}))
    for round, names in enumerate(["abc", "abc", "abd", "abd", "abd"], start=7):
        circumstances(strategy).rising = dict.fromkeys(names, True)
        checked_merge(strategy, replace(opposed(wrap, round), task_names=tuple(names)))
        # Round 9 begins anew, and scores nothing.
        assert ("own" in strategy.state) == (round in (8, 11))
