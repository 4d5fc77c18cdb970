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
from fedjoint.strategies.cfl import CFL
from fedjoint.strategies.ifca import IFCA


def kept(updates, backbones, received):
    """Return ``updates`` of clients that received some of the ``backbones`` ``[K, P]``."""
    return replace(updates, backbones=backbones, received=torch.tensor(received))


def test_ifca_moves_every_backbone_by_its_own_clients(draw):
    strategy, updates = IFCA(clusters=3, seed=5), draw(4)
    before = strategy.first_backbones(updates.backbone)
    steps = strategy.merge(kept(updates, before, [0, 2, 0, 2]))
    w, g = updates.weights, updates.matrix
    expected = torch.zeros_like(before)
    expected[0] = (w[0] * g[0] + w[2] * g[2]) / (w[0] + w[2])
    expected[2] = (w[1] * g[1] + w[3] * g[3]) / (w[1] + w[3])
    torch.testing.assert_close(steps, expected)
    assert strategy.receives(2, updates.clients, updates.tasks) is None  # they choose


def test_ifca_backbones_start_apart():
    backbone = torch.randn(10_000, generator=torch.Generator().manual_seed(1)) * 3
    first, second, third = IFCA(clusters=3, spread=0.5).first_backbones(backbone)
    assert first.equal(backbone)
    for other in (second, third):
        assert float((other - backbone).std()) == pytest.approx(1.5, rel=0.05)
    assert not second.equal(third)
    assert not second.equal(IFCA(spread=0.5, seed=1).first_backbones(backbone)[1])
    bound = []
    for seed in (0, 1):
        options = {"name": "ifca", "options": {"spread": 0.5}}
        strategy = make_strategy(check({"seed": seed, "strategy": options}))
        bound.append(strategy.first_backbones(backbone)[1])
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
    assert strategy.first_backbones(updates.backbone).equal(updates.backbone[None])
    of, steps = strategy.merge(updates)
    received = strategy.receives(2, updates.clients, updates.tasks)
    assert received.tolist() == [0, 1, 0, 0, 1, 1, 0] and of.tolist() == [0, 0]
    torch.testing.assert_close(steps[0], updates.matrix[[0, 2, 3, 6]].mean(0))
    torch.testing.assert_close(steps[1], updates.matrix[[1, 4, 5]].mean(0))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("agreement", "splits"), [(0.1, True), (0.3, False)])
def test_cfl_compares_lengths_with_those_of_the_updates(wrap, scale, agreement, splits):
    # Two directions: the mean update is `agreement` times as long as each of the updates.
    across = (1 - agreement**2) ** 0.5
    g = scale * torch.tensor([[agreement, across], [agreement, -across]] * 3)
    updates = replace(wrap(g), weights=torch.full((6,), 1 / 6))
    strategy = CFL(still=0.2)
    strategy.merge(updates)
    found = strategy.clusters(updates.clients).tolist()
    assert found == ([0, 1, 0, 1, 0, 1] if splits else [0] * 6)


@pytest.mark.parametrize(("shrunk", "splits"), [(0.25, False), (0.4, True)])
def test_cfl_leaves_those_alone_that_have_arrived(wrap, shrunk, splits):
    first, camps = wrap(torch.ones(7, 6)), two_camps(wrap)
    length = first.matrix[0].norm()
    matrix = camps.matrix * shrunk * length / camps.matrix.norm(dim=1).max()
    strategy = CFL(moving=0.3)
    strategy.merge(first)
    assert len(strategy.merge(replace(camps, matrix=matrix)).of) == 1 + splits


CONFLICT = ["engine.name=inline", "diagnostics.every=0", "data.source.options.conflict_degrees=120"]


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (["rounds=25"], 0.7),
        (["rounds=40", "strategy.fraction=0.5"], 0.9),
        # One backbone has 0.2 or less; clusters that IFCA knows from the first round 0.98, 0.86.
        (["rounds=60", "strategy.fraction=0.25"], 0.9),
        (["rounds=40", "local.lr_decay=0.9"], 0.5),
    ],
    ids=str,
)
def test_cfl_tells_the_tasks_of_the_conflict_scenario_apart(tmp_path, settings, least):
    settings = [*CONFLICT, f"output.dir={tmp_path}", "strategy.name=cfl", *settings]
    result = simulate(scenario_config("conflict", [*settings, "evaluate.every=100"]))
    ids, assignment = RunDir.open(result.path).latest().state["assignment"]
    assert torch.equal(ids, torch.arange(len(ids)))
    few = assignment[3::4]
    many = torch.cat([assignment[at::4] for at in range(3)])
    assert sorted({*few.tolist()}) + sorted({*many.tolist()}) in ([0, 1], [1, 0])
    assert min(result.metrics["test"].values()) > least


@pytest.mark.parametrize("fraction", [1.0, 0.25])
def test_cfl_leaves_clients_that_agree_together(tmp_path, fraction):
    settings = [*CONFLICT[:2], "data.source.options.conflict_degrees=0", f"output.dir={tmp_path}"]
    settings += ["strategy.name=cfl", "rounds=60", "evaluate.every=60"]
    result = simulate(scenario_config("conflict", [*settings, f"strategy.fraction={fraction}"]))
    assert not RunDir.open(result.path).latest().backbones


@pytest.mark.parametrize("options", [{"still": 0}, {"moving": 10.0}, {"most": 1}])
def test_cfl_does_not_split_without_its_conditions(wrap, options):
    updates = two_camps(wrap)
    strategy = CFL(**options)
    of, steps = strategy.merge(updates)
    torch.testing.assert_close(steps, updates.mean()[None])
    assert of.tolist() == [0]


def test_cfl_parts_have_the_least_similar_nearest_pair(draw):
    updates = draw(7, common=0.0)
    strategy = CFL(still=1, moving=0, across=1)
    strategy.merge(updates)
    cosine = torch.nn.functional.normalize(updates.matrix, dim=1)
    cosine = cosine @ cosine.T

    def across(part):
        rest = [i for i in range(7) if i not in part]
        return float(cosine[list(part)][:, rest].max())

    best = min(across(p) for n in (1, 2, 3) for p in combinations(range(7), n))
    part = (strategy.clusters(updates.clients) == 1).nonzero().squeeze(1).tolist()
    assert across(part) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("across", "splits"), [(-0.2, False), (-0.15, True)])
def test_cfl_bounds_the_cosines_across_a_split(wrap, across, splits):
    # The mean stands still; the nearest pair across the best split is 100 degrees apart.
    angle = torch.deg2rad(torch.tensor([0.0, 80.0, 180.0, 260.0]))
    g = torch.stack([angle.cos(), angle.sin()], 1)
    strategy = CFL(across=across)
    of, _ = strategy.merge(replace(wrap(g), weights=torch.full((4,), 1 / 4)))
    assert len(of) == 1 + splits


def part_of(updates, rows, received=None, count=1):
    """The round in which ``rows`` take part alone; of ``count`` backbones they had ``received``."""
    part = replace(
        updates,
        matrix=updates.matrix[rows],
        weights=torch.full((len(rows),), 1 / len(rows)),
        clients=updates.clients[rows],
    )
    return kept(part, updates.backbones.expand(count, -1), received or [0] * len(rows))


def test_cfl_has_the_absent_choose_and_then_stay(wrap):
    camps = two_camps(wrap)  # client ids are 0, 3, .. 18
    strategy = CFL()
    strategy.merge(replace(camps, matrix=torch.ones(7, 6)))  # everyone is in cluster 0
    assert strategy.merge(part_of(camps, [0, 1])).of.tolist() == [0, 0]
    everyone = torch.cat([camps.clients, torch.tensor([40])])
    received = strategy.receives(2, everyone, torch.ones(8, 3, dtype=torch.bool))
    assert received.tolist() == [0, 1, -1, -1, -1, -1, -1, -1]
    # One of each camp comes back, and a client that nobody has heard of.
    later = part_of(camps, [2, 4, 5], [0, 1, 1], 2)
    later = replace(later, clients=torch.tensor([6, 12, 40]))
    of, steps = strategy.merge(later)
    assert strategy.clusters(torch.tensor([6, 12, 40, 9])).tolist() == [0, 1, 1, -1]
    assert of.tolist() == [0, 1]
    torch.testing.assert_close(steps[0], later.matrix[0])
    torch.testing.assert_close(steps[1], later.matrix[1:].mean(0))


def test_cfl_adds_up_rounds_in_which_a_part_trains(wrap):
    camps = two_camps(wrap)
    lengths = camps.matrix.norm(dim=1)
    many, few = [0, 2, 3, 6], [1, 4, 5]
    tree = {"strategy": {"name": "cfl", "fraction": 0.5}, "local": {"optimiser": {"lr": 0.1}}}
    strategy = make_strategy(check(tree))
    assert len(strategy.merge(part_of(camps, many)).of) == 1  # they agree
    found = strategy.merge(part_of(camps, few))
    come = 0.5 * camps.matrix[many].mean(0) + camps.matrix[few].mean(0)
    way = 0.5 * lengths[many].mean() + lengths[few].mean()
    torch.testing.assert_close(strategy.state["come"], come[None])
    torch.testing.assert_close(strategy.state["way"].item(), way.item())
    assert len(found.of) == 1  # it moves, to and fro, but not enough


def test_cfl_s_lengths_are_of_their_learning_rates(wrap):
    first, camps = replace(wrap(torch.ones(7, 6)), round=1), two_camps(wrap)
    length = first.matrix[0].norm()
    # In round 21 the rate is a ninth of the first: updates of a tenth have hardly shrunk.
    late = replace(camps, matrix=0.1 * camps.matrix * length / camps.matrix.norm(dim=1).max())
    for decay, splits in ((0.9, True), (1.0, False)):
        tree = {"strategy": {"name": "cfl"}, "local": {"lr_decay": decay}}
        strategy = make_strategy(check(tree))
        strategy.merge(first)
        assert len(strategy.merge(replace(late, round=21)).of) == 1 + splits
