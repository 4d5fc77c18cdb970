"""The robust rules against brute force, closed forms and a general solver."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedjoint.errors import UserError
from strategies import columns
from strategies.columns import by_columns
from strategies.geometricmedian import GeometricMedian
from strategies.krum import Bulyan, Krum, MultiKrum, krum_scores
from strategies.median import Median
from strategies.normclip import NormClip
from strategies.trimmedmean import TrimmedMean


@pytest.mark.parametrize("malicious", [0, 1, 3, 9])
def test_krum_scores_by_trying_all_neighbourhoods(malicious, draw):
    updates = draw(7)
    g, nearest = updates.matrix.double(), max(1, 7 - malicious - 2)
    for i, score in enumerate(krum_scores(updates.gram, malicious).tolist()):
        away = [float((g[i] - g[j]).square().sum()) for j in range(7) if j != i]
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


def test_bulyan_says_how_many_clients_it_needs(draw):
    with pytest.raises(UserError, match="malicious = 2 needs 11 clients a round, got 10"):
        Bulyan(2).merge(draw(10))


def test_columns_are_worked_on_in_blocks(draw, monkeypatch):
    updates = draw(5, size=33)
    monkeypatch.setattr(columns, "BLOCK", 20)
    widths = []

    def statistic(block):
        widths.append(block.shape)
        return block.amax(1)

    expected = torch.from_numpy(updates.matrix.numpy().max(0))
    assert by_columns(updates.matrix, statistic).equal(expected)
    assert widths == [(4, 5)] * 8 + [(1, 5)]


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
