"""The robust rules against brute force, closed forms and a general solver."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedjoint.errors import UserError
from fedjoint.strategies import _columns
from fedjoint.strategies._columns import by_columns
from fedjoint.strategies._krum import krum_scores
from fedjoint.strategies.bulyan import Bulyan
from fedjoint.strategies.geometricmedian import GeometricMedian
from fedjoint.strategies.krum import Krum
from fedjoint.strategies.median import Median
from fedjoint.strategies.multikrum import MultiKrum
from fedjoint.strategies.normclip import NormClip
from fedjoint.strategies.trimmedmean import TrimmedMean


@pytest.mark.parametrize(
    ("rows", "malicious", "nearest"), [(7, 0, 5), (7, 1, 4), (7, 2, 3), (3, 0, 1), (2, 0, 1)]
)
def test_krum_scores_by_trying_all_neighbourhoods(rows, malicious, nearest, draw):
    updates = draw(rows)
    g = updates.matrix.double()
    for i, score in enumerate(krum_scores(updates.gram, malicious).tolist()):
        away = [float((g[i] - g[j]).square().sum()) for j in range(rows) if j != i]
        assert score == pytest.approx(min(map(sum, combinations(away, nearest))), rel=1e-4)


@pytest.mark.parametrize(
    "rule", [Krum(2), MultiKrum(2, 3), Bulyan(2), Median(), TrimmedMean(0.2), GeometricMedian()]
)
def test_two_liars_in_eleven_move_the_step_little(rule, draw):
    honest = draw(11, common=1.0)
    matrix = honest.matrix.clone()
    matrix[[3, 8]] = 1e4
    step = rule.merge(replace(honest, matrix=matrix, weights=torch.full((11,), 1 / 11)))
    good = torch.cat([matrix[:3], matrix[4:8], matrix[9:]])
    assert (step - good.mean(0)).norm() < (good - good.mean(0)).norm(dim=1).max()


@pytest.mark.parametrize(
    ("rule", "needed"), [(Krum(2), 7), (MultiKrum(2, 3), 7), (MultiKrum(2, 7), 9), (Bulyan(2), 11)]
)
def test_rules_say_how_many_clients_they_need(rule, needed, draw):
    said = f"malicious = 2 needs {needed} clients a round, got {needed - 1}: lower malicious"
    with pytest.raises(UserError, match=said):
        rule.merge(draw(needed - 1))
    rule.merge(draw(needed))


@pytest.mark.parametrize("select", [1, 3, 5, 9])
def test_krum_reckons_with_a_fifth_of_liars_as_far_as_the_round_allows(select, draw):
    for rows in range(2, 24):
        updates = draw(rows)
        most = max(f for f in range(rows) if f == 0 or rows >= max(2 * f + 3, select + f, 5 * f))
        assert torch.equal(
            MultiKrum(None, select).merge(updates), MultiKrum(most, select).merge(updates)
        )


@pytest.mark.parametrize("rows", [5, 6])
def test_bulyan_does_not_pass_for_robust_where_it_is_not(rows, draw):
    said = f"bulyan needs 7 clients a round to bear one that lies, got {rows}: .* malicious = 0"
    with pytest.raises(UserError, match=said):
        Bulyan().merge(draw(rows))
    assert torch.equal(Bulyan().merge(draw(7)), Bulyan(1).merge(draw(7)))
    torch.testing.assert_close(Bulyan().merge(draw(4)), draw(4).matrix.mean(0))


@pytest.mark.parametrize("rule", [MultiKrum(0, 5), Bulyan(0)])
def test_without_liars_a_small_round_is_averaged(rule, draw):
    updates = replace(draw(4), weights=torch.full((4,), 0.25))
    torch.testing.assert_close(rule.merge(updates), updates.mean())


@pytest.mark.parametrize(("rows", "malicious"), [(11, 1), (11, 2), (12, 2)])
def test_bulyan_coordinate_by_coordinate(rows, malicious, draw):
    updates = draw(rows)
    trusted = krum_scores(updates.gram, malicious).argsort()[: rows - 2 * malicious]
    expected = []
    for column in updates.matrix[trusted].T.double().numpy():
        middle = np.median(column)
        nearest = sorted(column, key=lambda v, middle=middle: abs(v - middle))
        expected.append(np.mean(nearest[: rows - 4 * malicious]))
    np.testing.assert_allclose(Bulyan(malicious).merge(updates), expected, atol=1e-6)


def test_columns_are_worked_on_in_blocks(draw, monkeypatch):
    updates = draw(5, size=33)
    monkeypatch.setattr(_columns, "BLOCK", 20)
    widths = []

    def statistic(values):
        widths.append(values.shape)
        return values[:, 1]

    rows = torch.tensor([4, 0, 2])
    expected = torch.from_numpy(np.sort(updates.matrix.numpy(), axis=0)[1])
    assert by_columns(updates.matrix, statistic).equal(expected)
    assert widths == [(4, 5)] * 8 + [(1, 5)]
    expected = torch.from_numpy(np.sort(updates.matrix[rows].numpy(), axis=0)[1])
    assert by_columns(updates.matrix, statistic, rows).equal(expected)


@pytest.mark.parametrize("seed", range(3))
def test_geometric_median_is_the_nearest_point_on_the_whole(seed, draw):
    updates = draw(6, size=4, seed=seed)
    g, weights = updates.matrix.double().numpy(), updates.weights.double().numpy()

    def distance(z):
        return weights @ np.linalg.norm(g - z, axis=1)

    best = minimize(distance, weights @ g, method="Nelder-Mead", tol=1e-10)
    step = GeometricMedian().merge(updates).double().numpy()
    assert distance(step) == pytest.approx(best.fun, rel=1e-4)
    assert distance(weights @ g) > 1.001 * best.fun  # the mean is farther


def test_norm_clip(wrap):
    updates = replace(
        wrap(torch.tensor([[3.0, 4.0], [0.6, 0.0], [0.0, 0.0]])),
        weights=torch.tensor([0.5, 0.25, 0.25]),
    )
    expected = torch.tensor([0.5 * 3 / 5 * 2 + 0.25 * 0.6, 0.5 * 4 / 5 * 2])
    torch.testing.assert_close(NormClip(norm=2).merge(updates), expected)
