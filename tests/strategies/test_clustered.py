"""Cluster backbones: IFCA and CFL."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.config.scenario import scenario_config
from fedjoint.runs.directory import RunDir
from fedjoint.server.strategy import make_strategy
from fedjoint.simulation import simulate
from strategies.clustered import CFL, IFCA


def test_ifca_moves_every_backbone_by_its_own_clients(draw):
    updates = replace(draw(4), extras={"cluster": torch.tensor([0, 2, 0, 2])})
    strategy = IFCA(clusters=3, seed=5)
    before = strategy.broadcast(updates.backbone)["backbones"].clone()
    step = strategy.merge(updates)
    w, g = updates.weights, updates.matrix
    after = before.clone()
    after[0] += (w[0] * g[0] + w[2] * g[2]) / (w[0] + w[2])
    after[2] += (w[1] * g[1] + w[3] * g[3]) / (w[1] + w[3])
    torch.testing.assert_close(strategy.broadcast(updates.backbone)["backbones"], after)
    expected = (w[0] + w[2]) * after[0] + (w[1] + w[3]) * after[2]
    torch.testing.assert_close(updates.backbone + step, expected)


def test_ifca_backbones_start_apart():
    backbone = torch.randn(10_000, generator=torch.Generator().manual_seed(1)) * 3
    first, second, third = IFCA(clusters=3, spread=0.5).broadcast(backbone)["backbones"]
    assert first.equal(backbone)
    for other in (second, third):
        assert float((other - backbone).std()) == pytest.approx(1.5, rel=0.05)
    assert not second.equal(third)
    assert not second.equal(IFCA(spread=0.5, seed=1).broadcast(backbone)["backbones"][1])
    bound = []
    for seed in (0, 1):
        options = {"name": "ifca", "options": {"spread": 0.5}}
        strategy = make_strategy(check({"seed": seed, "strategy": options}))
        bound.append(strategy.broadcast(backbone)["backbones"][1])
    assert second.equal(bound[0]) and not second.equal(bound[1])


def two_camps(wrap):
    """Seven clients, of which those at 1, 4 and 5 want the opposite of the others."""
    g = torch.zeros(7, 6)
    g[:, 0] = 2.0
    g[[1, 4, 5], 0] = -8 / 3
    g[:, 1:] = 0.1 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    return replace(wrap(g), weights=torch.full((7,), 1 / 7))


def test_cfl_splits_opposed_camps_and_then_trains_them_apart(wrap):
    updates = two_camps(wrap)  # client ids are 0, 3, .. 18
    strategy = CFL()
    backbone = updates.backbone
    assert strategy.broadcast(backbone)["backbones"].equal(backbone[None])
    step = strategy.merge(updates)
    sent = strategy.broadcast(backbone)
    assert sent["assignment"][updates.clients].tolist() == [0, 1, 0, 0, 1, 1, 0]
    stay, leave = [0, 2, 3, 6], [1, 4, 5]
    torch.testing.assert_close(sent["backbones"][0], backbone + updates.matrix[stay].mean(0))
    torch.testing.assert_close(sent["backbones"][1], backbone + updates.matrix[leave].mean(0))
    torch.testing.assert_close(
        backbone + step, 4 / 7 * sent["backbones"][0] + 3 / 7 * sent["backbones"][1]
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("agreement", "splits"), [(0.1, True), (0.3, False)])
def test_cfl_compares_lengths_with_those_of_the_updates(wrap, scale, agreement, splits):
    # Two directions: the mean update is `agreement` times as long as each of the updates.
    across = (1 - agreement**2) ** 0.5
    g = scale * torch.tensor([[agreement, across], [agreement, -across]] * 3)
    updates = replace(wrap(g), weights=torch.full((6,), 1 / 6))
    strategy = CFL(still=0.2)
    strategy.merge(updates)
    found = strategy.state["assignment"][updates.clients].tolist()
    assert found == ([0, 1, 0, 1, 0, 1] if splits else [0] * 6)


@pytest.mark.parametrize(("shrunk", "splits"), [(0.25, False), (0.4, True)])
def test_cfl_leaves_those_alone_that_have_arrived(wrap, shrunk, splits):
    first, camps = wrap(torch.ones(7, 6)), two_camps(wrap)
    length = first.matrix[0].norm()
    matrix = camps.matrix * shrunk * length / camps.matrix.norm(dim=1).max()
    strategy = CFL(moving=0.3)
    strategy.merge(first)
    strategy.merge(replace(camps, matrix=matrix))
    assert len(strategy.state["backbones"]) == 1 + splits


def test_cfl_tells_the_tasks_of_the_conflict_scenario_apart(tmp_path):
    settings = [
        "engine.name=inline",
        f"output.dir={tmp_path}",
        "data.synthetic.conflict_degrees=120",
    ]
    settings += ["strategy.name=cfl", "rounds=25", "evaluate.every=25", "diagnostics.every=0"]
    result = simulate(scenario_config("conflict", settings))
    state = RunDir.open(result.path).latest().state
    assert state["assignment"].tolist() == [0, 0, 0, 1] * 4
    # One backbone for both tasks gets to a mean R2 of 0.25 at the best.
    assert min(result.metrics["test"].values()) > 0.7


@pytest.mark.parametrize("options", [{"still": 0}, {"moving": 10.0}, {"most": 1}])
def test_cfl_does_not_split_without_its_conditions(wrap, options):
    updates = two_camps(wrap)
    strategy = CFL(**options)
    torch.testing.assert_close(strategy.merge(updates), updates.mean())
    assert len(strategy.state["backbones"]) == 1


def test_cfl_parts_have_the_least_similar_nearest_pair(draw):
    updates = draw(7, common=0.0)
    strategy = CFL(still=1, moving=0)
    strategy.merge(updates)
    cosine = torch.nn.functional.normalize(updates.matrix, dim=1)
    cosine = cosine @ cosine.T

    def across(part):
        rest = [i for i in range(7) if i not in part]
        return float(cosine[list(part)][:, rest].max())

    best = min(across(p) for n in (1, 2, 3) for p in combinations(range(7), n))
    part = (strategy.state["assignment"][updates.clients] == 1).nonzero().squeeze(1).tolist()
    assert across(part) == pytest.approx(best, abs=1e-6)


def test_cfl_keeps_unseen_clients_in_cluster_zero(wrap):
    strategy, updates = CFL(), two_camps(wrap)
    strategy.merge(updates)
    later = replace(updates, clients=torch.arange(100, 107), matrix=torch.ones(7, 6))
    before = strategy.state["backbones"].clone()
    strategy.merge(later)
    torch.testing.assert_close(strategy.state["backbones"], before + torch.tensor([[1.0], [0.0]]))
