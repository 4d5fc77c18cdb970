"""Rules against TorchJD's own, and TorchJD's aggregators by name against themselves on whole rows.

TorchJD is the second oracle: its aggregators are given the updates as they are, [rows, P], where
ours, and the strategy of its name, see inner products alone.
"""

from dataclasses import replace

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.simulation import simulate
from fedjoint.strategies.alignedmtl import AlignedMTL
from fedjoint.strategies.cagrad import CAGrad
from fedjoint.strategies.config import ConFIG
from fedjoint.strategies.fairgrad import FairGrad
from fedjoint.strategies.imtlg import IMTLG
from fedjoint.strategies.mgda import MGDA
from fedjoint.strategies.nashmtl import NashMTL
from fedjoint.strategies.torchjd import TorchJD
from fedjoint.strategies.upgrad import UPGrad

theirs = pytest.importorskip("torchjd.aggregation")

SEEDS = range(4)
BY_CLIENT = {"level": "client", "length": "own"}


def alike(draw, seed, rows=5, common=0.3):
    """Updates of the same weight, which most of TorchJD's aggregators presuppose."""
    updates = draw(rows, size=20, common=common, seed=seed)
    return replace(updates, weights=torch.full((rows,), 1 / rows))


def test_upgrad_of_two_updates_is_the_closed_form(wrap):
    # By hand: each loses its part along the other, as in (3, 0) + 3/5 * (-1, 2).
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([-1.0, 2.0])
    updates = replace(wrap(torch.stack([a, b])), weights=torch.tensor([0.25, 0.75]))
    normal_to_b, normal_to_a = torch.tensor([2.4, 1.2]), torch.tensor([0.0, 2.0])
    expected = 0.25 * normal_to_b + 0.75 * normal_to_a
    torch.testing.assert_close(UPGrad(**BY_CLIENT).merge(updates), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_upgrad_is_theirs(seed, draw):
    pytest.importorskip("qpsolvers")
    projector = torch_projector()
    updates = draw(6, size=20, common=0.1, seed=seed)
    weights = updates.weights.double()
    expected = theirs.UPGrad(pref_vector=weights, projector=projector)(updates.matrix.double())
    found = UPGrad(**BY_CLIENT).merge(updates)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    products = updates.matrix @ found
    assert (products >= -1e-5).all() and (updates.gram < 0).any()  # there was a conflict


def torch_projector():
    """Theirs without the numbers that it adds against division by zero."""
    linalg = pytest.importorskip("torchjd.linalg")
    return linalg.QuadprogProjector(norm_eps=1e-12, reg_eps=1e-10)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_fairgrad_has_the_direction_of_theirs(seed, alpha, draw):
    updates = alike(draw, seed, common=0.5)
    gram = updates.gram / updates.gram.diagonal().mean()
    expected = theirs.FairGrad(alpha=alpha).gramian_weighting(gram)
    # Theirs is SciPy's least squares, which stops at a relative 1e-8 of the squares.
    found = FairGrad(**BY_CLIENT, alpha=alpha).coefficients(gram, updates.weights.double())
    torch.testing.assert_close(found, expected / expected.sum(), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.1, 0.7, 3.0, 10.0])
def test_fairgrad_meets_its_equation_for_weights_of_all_sizes(alpha, draw):
    updates = draw(5, common=0.5)
    gram = updates.gram / updates.gram.diagonal().mean()
    weights = updates.weights.double()
    a = FairGrad(alpha=alpha).coefficients(gram, weights)
    # gram @ a = (weights / a) ** (1 / alpha) up to the scale of a.
    ratio = (gram @ a) / (weights / a) ** (1 / alpha)
    torch.testing.assert_close(ratio, ratio.mean().expand(5), rtol=1e-5, atol=0)


def test_fairgrad_with_alpha_one_is_nashmtl(draw):
    updates = draw(5, common=0.5)
    expected = NashMTL(**BY_CLIENT).merge(updates)
    torch.testing.assert_close(FairGrad(**BY_CLIENT, alpha=1).merge(updates), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_config_is_theirs(seed, draw):
    updates = alike(draw, seed)
    expected = theirs.ConFIG()(updates.matrix.double()) / 5  # they add up, we average
    found = ConFIG(**BY_CLIENT).merge(updates)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)


def test_config_has_the_direction_of_imtlg_and_the_part_of_the_mean_along_it(draw):
    updates = draw(5, common=0.3)
    step, other = ConFIG(**BY_CLIENT).merge(updates), IMTLG(**BY_CLIENT).merge(updates)
    cosine = torch.nn.functional.cosine_similarity(step, other, dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-5)
    along = updates.mean() @ step / step.norm()
    assert float(step.norm()) == pytest.approx(float(along), rel=1e-4)


def test_config_of_opposite_updates_stays(wrap):
    a = torch.tensor([1.0, 2.0, 0.5])
    assert not ConFIG(**BY_CLIENT).merge(wrap(torch.stack([a, -3 * a]))).any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("ours", "make", "factor"),
    [
        (MGDA, lambda: theirs.MGDA(epsilon=1e-12, max_iters=100_000), 1),
        (IMTLG, lambda: theirs.IMTLG(), 1),
        (AlignedMTL, lambda: theirs.AlignedMTL(), 1),
        (CAGrad, lambda: theirs.CAGrad(c=0.5, norm_eps=0.0), 1),
    ],
    ids=["mgda", "imtlg", "alignedmtl", "cagrad"],
)
def test_older_rules_are_theirs(ours, make, factor, seed, draw):
    if ours is CAGrad:
        pytest.importorskip("cvxpy")
    updates = alike(draw, seed, rows=4, common=0.5)
    expected = factor * make()(updates.matrix.double())
    torch.testing.assert_close(
        ours(**BY_CLIENT).merge(updates), expected.float(), rtol=5e-3, atol=2e-3
    )


NEEDING = {"CAGrad": "cvxpy", "DualProj": "qpsolvers", "UPGrad": "qpsolvers"}
OPTIONS = {"CAGrad": {"c": 0.4}, "FairGrad": {"alpha": 2.0}, "Krum": {"n_byzantine": 1}}
DRAWING = ("PCGrad", "Random")
NAMES = [
    *("AlignedMTL", "CAGrad", "ConFIG", "DualProj", "FairGrad", "IMTLG", "Krum", "MGDA", "Mean"),
    *(*DRAWING, "Sum", "UPGrad"),
]


@pytest.mark.parametrize("name", NAMES)
def test_an_aggregator_by_name_sees_inner_products_and_gives_what_it_gives_on_rows(name, draw):
    pytest.importorskip(NEEDING.get(name, "torch"))
    options = OPTIONS.get(name, {})
    rule = TorchJD(name=name, options=options, **BY_CLIENT)
    updates = draw(5, size=40, common=0.0 if name in DRAWING else 0.4)
    matrix = updates.matrix.double()
    scale = updates.gram.diagonal().mean().sqrt()  # what tolerances of theirs are relative to
    aggregator = getattr(theirs, name)(**options)
    if hasattr(aggregator, "pref_vector"):
        aggregator.pref_vector = updates.weights.double()
    found = rule.merge(updates)
    if name in DRAWING:
        assert found.equal(rule.merge(updates))  # drawn from the run's seed and the round
        rounds = [rule.merge(replace(updates, round=r)) for r in range(2, 12)]
        assert not all(found.equal(other) for other in rounds)
        return
    expected = scale * aggregator(matrix / scale)
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)


def test_every_aggregator_of_theirs_is_usable_or_refused_for_a_reason():
    made = {n for n in theirs.__all__ if isinstance(getattr(theirs, n), type)}
    aggregators = {n for n in made if issubclass(getattr(theirs, n), theirs.Aggregator)}
    refused = {}
    for name in aggregators - set(NAMES):
        with pytest.raises(UserError) as error:
            TorchJD(name=name)
        refused[name] = str(error.value)
    for name in ("GradDrop", "TrimmedMean", "ExcessMTL"):
        assert "looks at single parameters" in refused[name]
    for name in ("GradVac", "NashMTL", "PCD"):
        assert "no checkpoint holds" in refused[name]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "strategy torchjd needs the option name"),
        ({"name": "UPgrad"}, "unknown aggregator of TorchJD 'UPgrad'.*UPGrad"),
        ({"name": "FairGrad"}, "FairGrad of TorchJD: .*alpha"),
        ({"name": "Krum", "options": {"byzantine": 1}}, "unknown option of Krum of TorchJD"),
        ({"name": "Krum", "options": {"n_byzantine": -1}}, "must be non-negative"),
        ({"name": 3}, "option name = 3: a text is allowed"),
    ],
)
def test_an_aggregator_that_cannot_be_had_is_one_line_before_the_first_round(
    options, said, tmp_path
):
    config = {"strategy": {"name": "torchjd", "options": options}, "engine": "inline"}
    with pytest.raises(UserError, match=said) as error:
        simulate(check({**config, "output": {"dir": str(tmp_path)}}))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_an_aggregator_trains_a_run(tmp_path):
    config = {
        "rounds": 2,
        "data": {"clients": 4, "task_mix": [["digit"], ["ink"]], "examples_per_client": 20},
        "model": {"backbone": {"options": {"hidden": [4]}}},
        "strategy": {"name": "torchjd", "options": {"name": "MGDA"}},
        "engine": "inline",
        "output": {"dir": str(tmp_path)},
    }
    assert [record.kept for record in simulate(check(config)).records] == [None, None]
