"""The conflict-aware rules against closed forms, other solvers and their defining equations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedjoint._util.convex import project
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.server.strategy import make_strategy
from fedjoint.strategies._conflict import ConflictAware
from fedjoint.strategies.alignedmtl import AlignedMTL
from fedjoint.strategies.cagrad import CAGrad
from fedjoint.strategies.fedavg import FedAvg
from fedjoint.strategies.fedmgda import FedMGDA
from fedjoint.strategies.gradvac import GradVac
from fedjoint.strategies.imtlg import IMTLG
from fedjoint.strategies.mgda import MGDA
from fedjoint.strategies.nashmtl import NashMTL
from fedjoint.strategies.pcgrad import PCGrad

SEEDS = range(4)
OWN = {"level": "client", "length": "own"}  # the rules themselves, on the rows as they are


def slsqp(function, start, low=0.0, high=1.0):
    """Minimise over weights in [low, high] that sum to one, with scipy's general solver."""
    bounds = np.broadcast_to(
        np.stack([np.broadcast_to(low, start.shape), np.broadcast_to(high, start.shape)], 1),
        (len(start), 2),
    )
    found = minimize(
        function,
        start,
        bounds=bounds,
        method="SLSQP",
        jac="3-point",
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        # Finer than this, the line search meets the rounding of values around 20 and gives up.
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success, found.message
    return found.x


def double(updates):
    return updates.matrix.double().numpy(), updates.weights.double().numpy()


def test_projection_onto_bounded_weights():
    random = np.random.default_rng(0)
    for _ in range(5):
        point = random.normal(size=6)
        low, high = np.zeros(6), np.full(6, 0.4)
        expected = slsqp(
            lambda x, point=point: ((x - point) ** 2).sum(), np.full(6, 1 / 6), low, high
        )
        np.testing.assert_allclose(project(point, low, high), expected, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_mgda_of_two_updates_is_the_closed_form(seed, draw):
    updates = draw(2, size=3, seed=seed)
    a, b = updates.matrix
    share = float(((b - a) @ b / (a - b).square().sum()).clamp(0, 1))
    torch.testing.assert_close(MGDA(**OWN).merge(updates), share * a + (1 - share) * b)


@pytest.mark.parametrize("seed", SEEDS)
def test_mgda_is_the_shortest_combination(seed, draw):
    updates = draw(6, size=20, common=0.8, seed=seed)
    g, weights = double(updates)
    best = slsqp(lambda x: ((x @ g) ** 2).sum(), weights)
    step = MGDA(**OWN).merge(updates).double().numpy()
    np.testing.assert_allclose(step, best @ g, atol=2e-4)
    assert (g @ step >= step @ step - 1e-4).all()  # no update is opposed


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.2, 1.0])
def test_fedmgdaplus_solves_its_box_problem(epsilon, draw):
    updates = draw(6, size=20, common=0.8)
    g, weights = double(updates)
    length = np.linalg.norm(g, axis=1)
    unit = g / length[:, None]
    best = slsqp(
        lambda x: ((x @ unit) ** 2).sum(),
        weights,
        np.maximum(weights - epsilon, 0),
        np.minimum(weights + epsilon, 1),
    )
    step = FedMGDA(epsilon=epsilon).merge(updates).double().numpy()
    np.testing.assert_allclose(step, weights @ length * best @ unit, atol=2e-4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("radius", [0.2, 0.5, 0.9])
def test_cagrad_solves_its_dual(seed, radius, draw):
    updates = draw(5, size=20, common=0.5, seed=seed)
    g, weights = double(updates)
    mean = weights @ g
    reach = radius * np.linalg.norm(mean)

    def dual(x):
        return x @ g @ mean + reach * np.linalg.norm(x @ g)

    best = slsqp(dual, weights) @ g
    expected = mean + reach * best / np.linalg.norm(best)
    step = CAGrad(**OWN, radius=radius).merge(updates).double().numpy()
    np.testing.assert_allclose(step, expected, atol=1e-5)
    # Strong duality: the worst inner product equals the least dual value.
    assert (g @ step).min() == pytest.approx(dual(slsqp(dual, weights)), abs=1e-5)


def test_cagrad_of_radius_zero_is_fedavg(draw):
    torch.testing.assert_close(CAGrad(**OWN, radius=0).merge(draw(5)), FedAvg().merge(draw(5)))


@pytest.mark.parametrize("seed", SEEDS)
def test_nashmtl_meets_the_bargaining_equation(seed, draw):
    updates = draw(5, common=0.5, seed=seed)
    gram, weights = updates.gram, updates.weights.double()
    a = NashMTL().coefficients(gram, weights)
    assert (a > 0).all() and float(a.sum()) == pytest.approx(1)
    # gram @ a = weights / a up to the scale of a: the products are one number for all rows.
    products = a * (gram @ a) / weights
    torch.testing.assert_close(products, products.mean().expand(5), rtol=1e-6, atol=0)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.0])
def test_nashmtl_of_many_unequal_updates(sigma):
    random = np.random.default_rng(0)
    lengths = np.exp(random.normal(size=(300, 1)))
    g = lengths * (random.normal(size=(300, 1000)) + 0.2 * random.normal(size=1000))
    weights = np.exp(sigma * random.normal(size=300))
    weights /= weights.sum()
    gram = g @ g.T / (g**2).sum(1).mean()
    a = NashMTL().coefficients(torch.from_numpy(gram), torch.from_numpy(weights)).numpy()
    products = a * (gram @ a) / weights
    np.testing.assert_allclose(products, products.mean(), rtol=1e-5)

    def function(x):  # convex in a = exp(x), and without bounds
        slope = gram @ np.exp(x) * np.exp(x)
        return slope.sum() / 2 - weights @ x, slope - weights

    start = np.log(weights / gram.diagonal()) / 2
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9}
    best = np.exp(minimize(function, start, jac=True, method="L-BFGS-B", options=options).x)
    np.testing.assert_allclose(a @ g, best / best.sum() @ g, atol=1e-4 * np.abs(a @ g).max())


def test_nashmtl_without_a_bargain_is_an_error(draw, monkeypatch):
    monkeypatch.setattr("fedjoint.strategies._fair._STEPS", 1)
    with pytest.raises(UserError, match=r"no bargain: .* set strategy\.weight_by"):
        NashMTL().merge(draw(6))


def test_nashmtl_stays_finite_when_updates_cancel(wrap):
    step = NashMTL(**OWN).merge(wrap(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])))
    assert step.abs().max() < 1  # no agreement: nothing longer than the updates


@pytest.mark.parametrize("seed", SEEDS)
def test_imtlg_projects_equally_onto_all(seed, draw):
    updates = draw(5, seed=seed)
    step = IMTLG(**OWN).merge(updates)
    onto = torch.nn.functional.normalize(updates.matrix, dim=1) @ step
    torch.testing.assert_close(onto, onto.mean().expand(5), rtol=1e-3, atol=1e-4)
    c = IMTLG().coefficients(updates.gram, updates.weights.double())
    assert float(c.sum()) == pytest.approx(1)


def test_imtlg_points_against_nobody(wrap):
    # The third update, short, agrees with both others: coefficients that sum to one would give
    # every update the same negative projection.
    matrix = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.069, 0.069, 0.02]])
    updates = wrap(matrix)
    step = IMTLG(**OWN).merge(updates)
    onto = torch.nn.functional.normalize(matrix, dim=1) @ step
    torch.testing.assert_close(onto, onto[0].expand(3), rtol=1e-3, atol=1e-4)
    assert onto[0] > 0
    assert IMTLG().coefficients(updates.gram, updates.weights).sum() == pytest.approx(-1)


def test_imtlg_of_opposites_is_zero(wrap):
    assert IMTLG(**OWN).merge(wrap(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))).eq(0).all()


@pytest.mark.parametrize(
    ("scale", "of"),
    [
        ("min", np.min),
        ("median", lambda s: np.sort(s)[(len(s) - 1) // 2]),
        ("rmse", lambda s: np.sqrt((s**2).mean())),
    ],
)
@pytest.mark.parametrize("rows", [1, 4, 9])
def test_alignedmtl_from_the_singular_values_of_the_matrix(rows, scale, of, draw):
    updates = draw(rows, size=6, common=0.0)  # 9 rows in 6 dimensions: deficient rank
    u, s, v = np.linalg.svd(double(updates)[0], full_matrices=False)
    expected = double(updates)[1] @ (of(s) * u @ v)
    step = AlignedMTL(**OWN, scale=scale).merge(updates)
    np.testing.assert_allclose(step, expected, atol=1e-4)


def plain_pcgrad(g, order):
    """Project as the paper's algorithm says, on the vectors themselves."""
    result = g.copy()
    for i, row in enumerate(result):
        for j in order[i]:
            inner = row @ g[j]
            if j != i and inner < 0:
                row -= inner / (g[j] @ g[j]) * g[j]
    return result


@pytest.mark.parametrize("seed", SEEDS)
def test_pcgrad_projects_the_vectors(seed, draw):
    updates = draw(6, size=8, common=0.0, seed=seed)
    g, weights = double(updates)
    strategy = PCGrad(**OWN, seed=seed)
    expected = weights @ plain_pcgrad(g, strategy.order(updates.round, updates.clients.numpy()))
    np.testing.assert_allclose(strategy.merge(updates), expected, atol=1e-5)
    assert not np.allclose(expected, weights @ g)  # there were conflicts


@pytest.mark.parametrize("rule", [PCGrad, GradVac])
def test_orders_depend_on_run_seed_round_and_id_alone(rule):
    def order(ids, round=1, seed=1, run=0):
        options = {"name": rule.__name__.lower(), "options": {"seed": seed}}
        strategy = make_strategy(check({"seed": run, "strategy": options}))
        ids = np.array(ids)
        return {
            int(i): ids[row].tolist()
            for i, row in zip(ids, strategy.order(round, ids), strict=True)
        }

    ids = list(range(3, 40, 2))
    found = order(ids)
    assert all(sorted(row) == ids for row in found.values())
    assert len({tuple(row) for row in found.values()}) == len(ids)
    assert found == order(ids[::-1]) == order(ids[5:] + ids[:5])
    assert found != order(ids, round=2)
    assert found != order(ids, seed=2)
    assert found != order(ids, run=2)


def test_gradvac_over_rounds_on_the_vectors(draw):
    strategy, beta = GradVac(**OWN, seed=3, beta=0.3), 0.3
    targets = np.zeros((10, 10))
    for round, taking_part in enumerate([[0, 1, 2, 3], [2, 3, 5, 9], [0, 2, 5, 9]], start=1):
        updates = draw(4, size=8, common=0.6, seed=round, round=round)
        updates = replace(updates, clients=torch.tensor(taking_part))
        g, weights = double(updates)
        rows = g.copy()
        for i, row in enumerate(rows):
            for j in strategy.order(round, np.array(taking_part))[i]:
                if i == j:
                    continue
                own, other = np.linalg.norm(row), np.linalg.norm(g[j])
                phi, target = row @ g[j] / own / other, targets[taking_part[i], taking_part[j]]
                if phi < target:
                    row += g[j] * (
                        own
                        * (target * (1 - phi**2) ** 0.5 - phi * (1 - target**2) ** 0.5)
                        / (other * (1 - target**2) ** 0.5)
                    )
                    assert row @ g[j] / np.linalg.norm(row) / other == pytest.approx(target)
                targets[taking_part[i], taking_part[j]] += beta * (phi - target)
        np.testing.assert_allclose(strategy.merge(updates), weights @ rows, atol=1e-5)


@pytest.mark.parametrize("rule", [PCGrad, GradVac])
def test_without_conflicts_projection_is_fedavg(rule, draw):
    updates = draw(5, common=5.0)
    assert (updates.gram > 0).all()
    torch.testing.assert_close(rule(**OWN).merge(updates), FedAvg().merge(updates))


RULES = [MGDA, FedMGDA, CAGrad, NashMTL, IMTLG, AlignedMTL, PCGrad, GradVac]
BY_CLIENT = [FedMGDA]  # made for clients


@pytest.mark.parametrize("length", ["own", "mean"])
@pytest.mark.parametrize("rule", RULES)
def test_task_level_merges_the_mean_updates_of_tasks(rule, length, draw):
    updates = draw(7, common=0.1)
    by_client = rule(level="client", length=length)
    step = rule(level="task", length=length).merge(updates)
    torch.testing.assert_close(step, by_client.merge(updates.by_task()))
    assert not torch.allclose(step, by_client.merge(updates))
    assert by_client.per_client and not rule(level="task").per_client
    assert rule().level == ("client" if rule in BY_CLIENT else "task")
    apart = [rule(level=level).tasks_apart for level in ("task", "task_mean", "client")]
    assert apart == [True, False, False]
    mean = rule(level="task_mean", length=length)
    torch.testing.assert_close(mean.merge(updates), step)  # where nobody tells tasks apart


@pytest.mark.parametrize("rule", RULES)
def test_a_step_is_as_long_as_the_weighted_mean(rule, draw):
    updates = draw(7, common=0.2)
    own = rule(level="client", length="own").merge(updates)
    scaled = rule(level="client", length="mean").merge(updates)
    torch.testing.assert_close(scaled, own * updates.mean().norm() / own.norm())
    assert abs(own.norm() / updates.mean().norm() - 1) > 1e-3  # there was something to do
    assert rule().length == "own"


@pytest.mark.parametrize("rule", [MGDA, IMTLG, PCGrad])
def test_a_step_of_zero_is_not_made_longer(rule, draw):
    matrix = draw(1).matrix
    updates = replace(draw(2), matrix=torch.cat([3 * matrix, -0.7 * matrix]))
    assert updates.mean().norm() > 0.1
    assert rule(level="client", length="mean").merge(updates).norm() < 1e-3


@pytest.mark.parametrize("length", ["own", "mean"])
@pytest.mark.parametrize("rule", RULES)
def test_an_update_of_zero_only_shortens_the_step(rule, length, draw):
    updates = draw(4, common=0.5)
    matrix = torch.cat([updates.matrix, torch.zeros(1, 30)])
    weights = torch.cat([0.75 * updates.weights, torch.tensor([0.25])])
    clients = torch.arange(5)
    more = replace(updates, matrix=matrix, weights=weights, clients=clients)
    torch.testing.assert_close(
        rule(level="client", length=length).merge(more),
        0.75 * rule(level="client", length=length).merge(updates),
        rtol=1e-4,
        atol=1e-5,
    )
    still = replace(updates, matrix=torch.zeros(4, 30))
    assert rule(level="client", length=length).merge(still).eq(0).all()


def test_a_rule_of_ones_own_is_one_method(draw):
    class Mean(ConflictAware):
        def coefficients(self, gram, weights):
            return weights

    mean = Mean(level="client", server_lr=0.5)
    torch.testing.assert_close(mean.merge(draw(4)), 0.5 * draw(4).mean())
