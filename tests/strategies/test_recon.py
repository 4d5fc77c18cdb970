"""Recon: layers are chosen by their conflicts, and from then on tasks have some of their own."""

from dataclasses import replace

import pytest
import torch

from fedjoint.config.scenario import scenario_config
from fedjoint.model.layout import Layout
from fedjoint.simulation import simulate
from fedjoint.strategies.recon import Recon

LAYOUT = Layout({"a.weight": (2, 1), "b.weight": (2,), "c.weight": (1, 2), "a.bias": (1,)})
A, B, C = [0, 1, 6], [2, 3], [4, 5]  # where each layer's numbers are
TASKS = torch.eye(2, dtype=torch.bool)[[0, 0, 1]]


def conflicting(wrap, *layers, round=1):
    """Three clients, the third of which has another task and pulls some layers the other way."""
    sign = torch.ones(7)
    for layer in layers:
        sign[layer] = -1
    g = torch.stack([torch.arange(1.0, 8), 2 * torch.arange(1.0, 8), sign * torch.ones(7)])
    found = wrap(g, round)
    weights = torch.tensor([0.5, 0.25, 0.25])
    return replace(found, layout=LAYOUT, tasks=TASKS, task_names=("x", "y"), weights=weights)


def test_the_layers_with_most_conflicts_become_the_tasks_own(wrap):
    strategy = Recon(after=3, share=0.4)  # one layer of three
    for round, layers in enumerate([(A,), (A, C)], 1):
        step = strategy.merge(conflicting(wrap, *layers, round=round))
        torch.testing.assert_close(step, conflicting(wrap, *layers).mean())
    third = conflicting(wrap, C, C, round=3)
    of, steps = strategy.merge(third)
    assert of.tolist() == [0, 0] and strategy.state["score"].tolist() == [2, 0, 2]
    assert strategy.state["own"].tolist() == [True, False, False]  # of equals the first
    torch.testing.assert_close(steps, third.mean().expand(2, -1))
    # From now on a is each task's own, and the rest everyone's.
    last = conflicting(wrap, round=4)
    received = strategy.receives(4, last.clients, last.tasks)
    assert received.tolist() == [0, 0, 1]
    last = replace(last, backbones=torch.zeros(2, 7), received=received)
    steps, g = strategy.merge(last), last.matrix
    expected = last.mean().expand(2, -1).clone()
    expected[0, A] = (0.5 * g[0, A] + 0.25 * g[1, A]) / 0.75
    expected[1, A] = g[2, A]
    torch.testing.assert_close(steps, expected)


@pytest.mark.parametrize(("layers", "share"), [((), 1.0), ((A, B, C), 0.0)])
def test_without_a_conflict_or_a_share_there_is_one_backbone(wrap, layers, share):
    strategy = Recon(after=1, share=share)
    for round in (1, 2):
        updates = conflicting(wrap, *layers, round=round)
        torch.testing.assert_close(strategy.merge(updates).reshape(-1), updates.mean())


def test_rounds_of_few_conflicts_count_all_pairs(wrap):
    g = torch.tensor([[1.0, 0], [0, 1], [-1, -1]])
    updates = replace(wrap(g), layout=Layout({"w": (2,)}), tasks=torch.eye(3, dtype=torch.bool))
    for below, count in ((0.0, 2), (-0.8, 0)):
        strategy = Recon(after=9, below=below)
        strategy.merge(updates)
        assert strategy.state["score"].tolist() == [count]


def test_opposed_tasks_are_saved_by_layers_of_their_own(tmp_path):
    settings = ["rounds=30", "engine.name=inline", "diagnostics.every=0", f"output.dir={tmp_path}"]
    settings += ["data.source.options.conflict_degrees=120", "strategy.name=recon"]
    result = simulate(scenario_config("conflict", [*settings, "strategy.options.share=1.0"]))
    # One backbone gets 0.25 at best; see the README.
    assert min(result.metrics["test"].values()) > 0.8
