"""The robust rules at their breakdown points, against liars of any length that float32 holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedjoint.strategies._krum import krum_scores
from fedjoint.strategies.bulyan import Bulyan
from fedjoint.strategies.geometricmedian import GeometricMedian
from fedjoint.strategies.krum import Krum
from fedjoint.strategies.median import Median
from fedjoint.strategies.multikrum import MultiKrum
from fedjoint.strategies.normclip import NormClip
from fedjoint.strategies.trimmedmean import TrimmedMean

ROWS, SIZE = 11, 40
MOST = float(torch.finfo(torch.float32).max)
LENGTHS = 1e-3, 1.0, 30.0, 1e4, 1e10, 1e25, MOST  # of the greatest entry
# Rule -> how many of 11 clients may lie.
BREAKDOWN = {
    Median(): 5,
    TrimmedMean(0.2): 2,
    TrimmedMean(0.46): 5,
    Krum(4): 4,
    MultiKrum(4, 7): 4,
    MultiKrum(2, 3): 2,
    Bulyan(2): 2,
    GeometricMedian(): 5,
}


def lies(honest, count, length, seed):
    """Yield ``[count, SIZE]`` what liars may agree to send, the greatest entries ``length``."""
    random = np.random.default_rng(seed)
    alike = np.tile(random.normal(size=SIZE), (count, 1))
    against = np.tile(-honest.mean(0), (count, 1))
    apart = random.normal(size=(count, SIZE))
    signs = np.where(np.arange(count) % 2, 1, -1)[:, None]
    coordinate = np.eye(SIZE)[np.zeros(count, int)]
    for name, rows in {
        "alike": alike,
        "against the mean": against,
        "apart": apart,
        "of both signs": signs * alike,
        "in one coordinate": coordinate,
        "in one coordinate, of both signs": signs * coordinate,
        "everything": signs * np.sign(apart),
    }.items():
        yield name, rows * (length / np.abs(rows).max())


def attacked(wrap, honest, lying):
    """Return updates of equal weight, the liars' rows between the others'."""
    rows = np.concatenate([honest, lying]).clip(-MOST, MOST).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(rows))
    updates = wrap(torch.from_numpy(rows[order]))
    return replace(updates, weights=torch.full((len(rows),), 1 / len(rows)))


def within(rule, step, honest, liars):
    """Say whether ``step`` is as near to the honest updates as the rule's docstring says."""
    low, high, centre = honest.min(0), honest.max(0), honest.mean(0)
    close = 1e-6 * np.abs(honest).max()  # float32
    if isinstance(rule, Bulyan):
        low, high = low - (high - low), high + (high - low)
    if isinstance(rule, Median | TrimmedMean | Bulyan):
        return (step >= low - close).all() and (step <= high + close).all()
    apart = np.linalg.norm(honest[:, None] - honest, axis=2).max()
    radius = np.linalg.norm(honest - centre, axis=1).max()
    if isinstance(rule, GeometricMedian):
        alpha = liars / (len(honest) + liars)
        most = 2 * (1 - alpha) / (1 - 2 * alpha) * radius
    else:
        most = radius + (len(honest) - 2) ** 0.5 * apart
    return np.linalg.norm(step - centre) <= most + close * SIZE**0.5


@pytest.mark.parametrize("common", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("rule", BREAKDOWN, ids=lambda rule: type(rule).__name__)
def test_liars_of_any_length_do_not_break_the_rule(rule, common, wrap):
    liars, broken = BREAKDOWN[rule], []
    random = np.random.default_rng(1)
    honest = random.normal(size=(ROWS - liars, SIZE)) + common * random.normal(size=SIZE)
    honest = honest.astype(np.float32).astype(float)
    for length in LENGTHS:
        for name, lying in lies(honest, liars, length, seed=2):
            step = rule.merge(attacked(wrap, honest, lying)).double().numpy()
            if not within(rule, step, honest, liars):
                broken.append((name, length, float(np.linalg.norm(step))))
    assert not broken


@pytest.mark.parametrize("rule", [TrimmedMean(0.2), Krum(2), GeometricMedian()])
def test_the_bounds_are_no_empty_words(rule, wrap):
    # Beyond its breakdown point, a rule follows the liars.
    honest = np.random.default_rng(1).normal(size=(5, SIZE))
    step = rule.merge(attacked(wrap, honest, np.full((6, SIZE), 1e4))).double().numpy()
    assert not within(rule, step, honest, 4)


@pytest.mark.parametrize("common", [0.0, 1e4])
def test_krum_sees_who_is_apart_beside_a_large_common_part(common, wrap):
    random = np.random.default_rng(3)
    honest = random.normal(size=(8, SIZE)) + common * random.normal(size=SIZE)
    lying = honest[:3] + 3 * random.normal(size=(3, SIZE))
    updates = attacked(wrap, honest, lying)
    rows = updates.matrix.double()
    away = torch.stack([(rows - row).square().sum(1) for row in rows])
    expected = away.sort(dim=1).values[:, 1:7].sum(1)  # of itself and 11 - 3 - 2 others
    torch.testing.assert_close(krum_scores(updates.gram, 3), expected, rtol=1e-5, atol=0)
    # All that is left is honest: eight are asked for, and there are eight.
    mean = honest.astype(np.float32).mean(0)
    step = MultiKrum(3, 8).merge(updates).numpy()
    np.testing.assert_allclose(step, mean, atol=1e-6 * max(1, common))


def test_krum_takes_the_first_of_two_that_are_as_good(draw):
    # Of three, each of the nearest two has the other as its nearest: the scores are equal.
    for seed in range(50):
        updates = draw(3, size=1000, common=10.0, seed=seed)
        rows = updates.matrix.double()
        pairs = {(i, j): float((rows[i] - rows[j]).norm()) for i, j in [(0, 1), (0, 2), (1, 2)]}
        assert Krum().merge(updates).equal(updates.matrix[min(pairs, key=pairs.get)[0]])


def pulled(honest, weights, pull):
    """Return the z with the least sum_i weights_i * |z - honest_i| - pull @ z.

    Liars who are infinitely far away pull with their weight, and nothing else.
    """

    def function(z):
        away = z - honest
        length = np.linalg.norm(away, axis=1)
        return weights @ length - pull @ z, weights / length @ away - pull

    start = weights @ honest / weights.sum()
    options = {"gtol": 1e-11, "maxiter": 5000}
    return minimize(function, start, jac=True, method="BFGS", options=options).x


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.49])
@pytest.mark.parametrize("length", [1e4, 1e10, 1e25, 3e37])
def test_geometric_median_of_liars_far_away(share, length, wrap):
    random = np.random.default_rng(4)
    honest = random.normal(size=(9, SIZE))
    honest /= np.linalg.norm(honest, axis=1, keepdims=True)
    towards = random.normal(size=SIZE)
    towards /= np.linalg.norm(towards)
    rows = np.concatenate([honest, length * towards[None]])
    weights = np.append(np.full(9, (1 - share) / 9), share)
    updates = wrap(torch.tensor(rows, dtype=torch.float32))
    updates = replace(updates, weights=torch.tensor(weights, dtype=torch.float32))
    step = GeometricMedian().merge(updates).double().numpy()
    expected = pulled(honest, weights[:9], share * towards)
    assert np.linalg.norm(step - expected) < 1e-5 + 10 / length


@pytest.mark.parametrize("length", [1.0, 1e-20, 1e30])
def test_geometric_median_at_any_scale(length, draw):
    updates = draw(7, size=5)
    step = GeometricMedian().merge(updates)
    scaled = GeometricMedian().merge(replace(updates, matrix=updates.matrix * length))
    torch.testing.assert_close(scaled / length, step)


def test_geometric_median_is_where_more_than_half_are(draw):
    updates = draw(5)
    matrix = updates.matrix.clone()
    matrix[[1, 4]] = updates.matrix[2]
    for weights in ([0.3, 0.2, 0.2, 0.19, 0.11], [0.05, 0.3, 0.3, 0.05, 0.3]):
        step = GeometricMedian().merge(
            replace(updates, matrix=matrix, weights=torch.tensor(weights))
        )
        torch.testing.assert_close(step, matrix[2])


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("norm", [0.5, 10.0])
def test_norm_clip_bounds_what_anybody_does(length, norm, wrap):
    honest = np.random.default_rng(5).normal(size=(9, SIZE))
    for name, lying in lies(honest, 2, length, seed=6):
        updates = attacked(wrap, honest, lying)
        rows = updates.matrix.double()
        unit = rows / rows.norm(dim=1, keepdim=True)
        expected = updates.weights.double() @ (unit * rows.norm(dim=1).clamp(max=norm)[:, None])
        step = NormClip(norm).merge(updates).double()
        assert (step - expected).norm() < 1e-6 * norm, name


def test_trimmed_mean_cuts_what_beta_says(wrap):
    values = torch.arange(100.0).square()
    updates = wrap(values[:, None])
    for percent in range(50):
        step = TrimmedMean(percent / 100).merge(updates)
        expected = values[percent : 100 - percent].mean(0, keepdim=True)
        torch.testing.assert_close(step, expected)


def test_median_between_two_of_the_greatest(wrap):
    rows = torch.tensor([[-3e38], [3e38], [3.2e38], [3.3e38]])
    torch.testing.assert_close(Median().merge(wrap(rows)), torch.tensor([3.1e38]))
