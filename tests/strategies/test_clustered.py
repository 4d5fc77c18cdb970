"""Cluster backbones: IFCA and CFL."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

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
    assert second.equal(IFCA(clusters=2, spread=0.5).broadcast(backbone)["backbones"][1])


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


@pytest.mark.parametrize("options", [{"still": 1e-6}, {"moving": 10.0}, {"most": 1}])
def test_cfl_does_not_split_without_its_conditions(wrap, options):
    updates = two_camps(wrap)
    strategy = CFL(**options)
    torch.testing.assert_close(strategy.merge(updates), updates.mean())
    assert len(strategy.state["backbones"]) == 1


def test_cfl_parts_have_the_least_similar_nearest_pair(draw):
    updates = draw(7, common=0.0)
    strategy = CFL(still=100, moving=0)
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
