"""Updates that are opposed, dependent, alike, zero or of very unequal length, to every rule.

Whatever the machine and the order in which it sums, what the rules make of them follows from
the updates alone.
"""

from dataclasses import replace
from decimal import Decimal, localcontext
from itertools import combinations

import numpy as np
import pytest
import torch

from fedjoint.strategies.alignedmtl import AlignedMTL
from fedjoint.strategies.cagrad import CAGrad
from fedjoint.strategies.fedmgda import FedMGDA
from fedjoint.strategies.gradvac import GradVac
from fedjoint.strategies.imtlg import IMTLG
from fedjoint.strategies.mgda import MGDA
from fedjoint.strategies.nashmtl import NashMTL
from fedjoint.strategies.pcgrad import PCGrad

RULES = [MGDA, FedMGDA, CAGrad, NashMTL, IMTLG, AlignedMTL, PCGrad, GradVac]
SIZE = 60
TILTS = 1e-7, 1e-6, 1e-5, 1e-3
RATIOS = 1e3, 1e6
rules = pytest.mark.parametrize("rule", RULES)


def exactly(seed):
    """Yield matrices that are degenerate up to the rounding of their entries."""
    random = np.random.default_rng(seed)
    u, v, w = random.normal(size=(3, SIZE))
    yield "opposed", [3 * u, -0.7 * u]
    yield "opposed, and one more", [3 * u, -0.7 * u, v]
    yield "three that cancel out", [u, v, -u - v]
    yield "alike", [u, 0.3 * u, 2 * u]
    yield "alike, and one more", [3 * u, 0.7 * u, v]
    yield "the same, and one more", [u, u, v]
    yield "two against one", [u, 0.3 * u, -2 * u]
    yield "one between two", [u, v, (u + v) / 2]
    yield "five in three dimensions", random.normal(size=(5, 3)) @ [u, v, w]
    yield "twelve in three dimensions", random.normal(size=(12, 3)) @ [u, v, w]
    yield "one of zero", [u, v, 0 * u]
    yield "opposed, and one of zero", [3 * u, 0 * u, -0.7 * u]
    for ratio in RATIOS:
        yield f"opposed, {ratio:g} times as long", [ratio * u, -u, v]
        yield f"two of {ratio:g} opposed", [ratio * u, -0.3 * ratio * u, v, w]
        yield f"alike, {ratio:g} times as long", [ratio * u, u, v, w]
        yield f"two of {ratio:g} alike", [ratio * u, 0.3 * ratio * u, v, w]


def nearly(seed):
    """Yield matrices that are nearly degenerate, or not at all but for their lengths."""
    random = np.random.default_rng(seed)
    u, v, w, x = random.normal(size=(4, SIZE))
    for tilt in TILTS:
        yield f"opposed but for {tilt:g}", [3 * u, -0.7 * u + tilt * v, w]
        yield f"alike but for {tilt:g}", [3 * u, 0.7 * u + tilt * v, w]
        yield f"dependent but for {tilt:g}", [u, v, w, u - v + 0.5 * w + tilt * x]
    for ratio in RATIOS:
        yield f"one {ratio:g} times as long", [ratio * u, v, w - u]


def merge(rule, updates):
    return rule(level="client").merge(updates).double()


def typical(updates):
    """The mean length of the updates."""
    return float(updates.weights.double() @ updates.matrix.double().norm(dim=1))


def summed_otherwise(updates, seed=0):
    """Yield the updates with other rounding errors in their inner products.

    An entry of the Gram matrix is off by what any order of summing SIZE float64 terms may make.
    """
    random = torch.Generator().manual_seed(seed)
    length = updates.gram.diagonal().sqrt()
    most = SIZE * torch.finfo(torch.float64).eps / 2 * torch.outer(length, length)
    for _ in range(2):
        noise = 2 * torch.rand(most.shape, generator=random, dtype=torch.float64) - 1
        other = replace(updates)
        other.__dict__["gram"] = updates.gram + most * (noise + noise.T) / 2
        yield other


def wrapped(wrap, rows, seed=0):
    return wrap(torch.tensor(np.array(rows), dtype=torch.float32), seed=seed)


def far(found, right, close):
    """Say whether two steps differ by more than ``close``."""
    return not (found - right).norm() <= close


@rules
def test_the_order_of_summing_does_not_matter(rule, wrap):
    wrong = set()
    p = torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))
    for name, rows in [*exactly(0), *nearly(0)]:
        updates = wrapped(wrap, rows)
        step, close = merge(rule, updates), 1e-6 * typical(updates)
        if any(far(merge(rule, other), step, close) for other in summed_otherwise(updates)):
            wrong.add(name)
        if far(merge(rule, replace(updates, matrix=updates.matrix[:, p])), step[p], close):
            wrong.add(f"{name}: columns")
    assert not wrong


@rules
def test_the_order_of_the_clients_does_not_matter(rule, wrap):
    wrong = set()
    for name, rows in [*exactly(1), *nearly(1)]:
        updates = wrapped(wrap, rows)
        p = torch.randperm(len(updates), generator=torch.Generator().manual_seed(1))
        other = replace(
            updates,
            matrix=updates.matrix[p],
            weights=updates.weights[p],
            clients=updates.clients[p],
        )
        if far(merge(rule, other), merge(rule, updates), 1e-6 * typical(updates)):
            wrong.add(name)
    assert not wrong


@rules
def test_the_rounding_of_entries_matters_little(rule, wrap):
    wrong = set()
    for name, rows in exactly(2):
        updates = wrapped(wrap, rows)
        step, close = merge(rule, updates), 2e-4 * typical(updates)
        for seed in range(2):
            random = torch.Generator().manual_seed(seed)
            noise = 2 * torch.rand(updates.matrix.shape, generator=random) - 1
            other = replace(updates, matrix=updates.matrix * (1 + 2**-24 * noise))
            if far(merge(rule, other), step, close):
                wrong.add(name)
    assert not wrong


@pytest.mark.parametrize("rule", [MGDA, FedMGDA, CAGrad, NashMTL, PCGrad, GradVac])
def test_nearly_opposed_is_like_opposed(rule, draw):
    updates = draw(3, size=SIZE)
    u, v, w = updates.matrix
    opposed = replace(updates, matrix=torch.stack([3 * u, -0.7 * u, w]))
    limit = merge(rule, opposed)
    for tilt in (1e-7, 1e-6):
        tilted = replace(updates, matrix=torch.stack([3 * u, -0.7 * u + tilt * v, w]))
        assert (merge(rule, tilted) - limit).norm() < 2e3 * tilt * typical(updates)


@pytest.mark.parametrize("tilt", TILTS)
def test_equal_projections_of_nearly_opposed_updates_are_small(tilt, draw):
    updates = draw(2, size=SIZE)
    u, v = updates.matrix
    tilted = replace(updates, matrix=torch.stack([3 * u, -0.7 * u + tilt * v]))
    assert merge(IMTLG, tilted).norm() < tilt * v.norm()


@pytest.mark.parametrize("length", ["own", "mean"])
@pytest.mark.parametrize("level", ["client", "task"])
def test_where_only_zero_projects_equally_imtlg_stands_still(level, length, wrap):
    rule, moved = IMTLG(level=level, length=length), []
    for seed in range(100):
        random = np.random.default_rng(seed)
        u, v, w = random.normal(size=(3, SIZE))
        dependent = random.normal(size=(4, 3)) @ [u, v, w]
        for rows in ([u, -random.random() * u], [u, -2 * u, v], [u, v, -u - v], dependent):
            updates = wrapped(wrap, rows)
            alone = torch.eye(len(rows), dtype=torch.bool)
            names = tuple(f"t{i}" for i in range(len(rows)))
            step = rule.merge(replace(updates, tasks=alone, task_names=names))
            if step.any():
                moved.append((seed, len(rows), float(step.norm())))
    assert not moved


@pytest.mark.parametrize("rule", [MGDA, IMTLG, PCGrad, NashMTL])
def test_opposed_updates_leave_no_direction_to_lengthen(rule, wrap):
    for seed in range(20):
        random = np.random.default_rng(seed)
        u = random.normal(size=SIZE)
        updates = wrapped(wrap, [u, -random.uniform(0.1, 10) * u])
        assert not rule(level="client", length="mean").merge(updates).any()


@pytest.mark.parametrize("rule", [MGDA, CAGrad, NashMTL, IMTLG])
def test_a_client_split_in_two_counts_once(rule, draw):
    updates = draw(4, size=SIZE, common=0.5)
    split = replace(
        updates,
        matrix=torch.cat([updates.matrix, updates.matrix[:1]]),
        weights=torch.cat([updates.weights, updates.weights[:1] / 2]),
        clients=torch.arange(5),
    )
    split.weights[0] /= 2
    assert (merge(rule, split) - merge(rule, updates)).norm() < 1e-6 * typical(updates)


def test_gradvac_learns_nothing_from_rounding(wrap):
    u, v = np.random.default_rng(0).normal(size=(2, SIZE))
    updates = wrapped(wrap, [u, -0.7 * u, 0.3 * u, v])
    targets = []
    for other in (updates, *summed_otherwise(updates)):
        strategy = GradVac(level="client", beta=0.5)
        for round in (1, 2, 3):
            following = replace(other, round=round)
            following.__dict__["gram"] = other.gram
            strategy.merge(following)
        targets.append(strategy.state["targets"])
    for found in targets[1:]:
        torch.testing.assert_close(found, targets[0], rtol=0, atol=1e-6)


def solve(matrix, right):
    """Solve ``matrix @ x = right`` by elimination; None where no pivot is left."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for k in range(len(rows)):
        pivot = max(range(k, len(rows)), key=lambda i: abs(rows[i][k]))
        if abs(rows[pivot][k]) < Decimal("1e-40"):
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i, row in enumerate(rows):
            if i != k:
                factor = row[k] / rows[k][k]
                rows[i] = [a - factor * b for a, b in zip(row, rows[k], strict=True)]
    return [row[-1] / row[k] for k, row in enumerate(rows)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def mixed(c, rows):
    return np.array([float(dot(c, column)) for column in zip(*rows, strict=True)])


def shortest(rows):
    """MGDA in 60 digits: the shortest of the nearest points of all faces that are in them."""
    found = []
    gram = [[dot(a, b) for b in rows] for a in rows]
    for size in range(1, len(rows) + 1):
        for face in combinations(range(len(rows)), size):
            inner = [[gram[i][j] for j in face] + [Decimal(1)] for i in face]
            inner.append([Decimal(1)] * size + [Decimal(0)])
            c = solve(inner, [Decimal(0)] * size + [Decimal(1)])
            if c and min(c[:-1]) >= 0:
                full = [Decimal(0)] * len(rows)
                for i, value in zip(face, c, strict=False):
                    full[i] = value
                found.append((dot(full, [dot(line, full) for line in gram]), full))
    return mixed(min(found)[1], rows)


def impartial(rows):
    """IMTL-G in 60 digits, by the paper's formula, and with our sign."""
    units = [[x / dot(row, row).sqrt() for x in row] for row in rows]
    first, *others = rows
    apart = [[a - b for a, b in zip(units[0], unit, strict=True)] for unit in units[1:]]
    moves = [[a - b for a, b in zip(first, row, strict=True)] for row in others]
    # alpha @ (moves @ apart.T) = first @ apart.T
    system = [[dot(move, line) for move in moves] for line in apart]
    alpha = solve(system, [dot(first, line) for line in apart])
    step = mixed([1 - sum(alpha), *alpha], rows)
    return step if dot(step, map(float, units[0])) >= 0 else -step


@pytest.mark.parametrize(("rule", "oracle"), [(MGDA, shortest), (IMTLG, impartial)])
def test_against_sixty_digits(rule, oracle, wrap):
    u, v, w, x = np.random.default_rng(7).normal(size=(4, SIZE))
    cases = {f"one {r:g} times as long": [v, w - u, r * u] for r in (1, 1e3, 1e6, 1e8)}
    cases |= {f"two {r:g} times as long": [x, w - u, r * (v - u), r * u] for r in (1e6, 1e8)}
    cases |= {f"tilted by {t:g}": [3 * u, 0.7 * u + t * v, w, x - u] for t in (1e-3, 1e-5)}
    cases |= {f"opposed but for {t:g}": [3 * u, -0.7 * u + t * v, w] for t in (1e-3, 1e-5)}
    for name, rows in cases.items():
        updates = wrapped(wrap, rows)
        with localcontext(prec=60):
            exact = [[Decimal(value) for value in row] for row in updates.matrix.tolist()]
            expected = oracle(exact)
        step = merge(rule, updates).numpy()
        least = float(updates.matrix.norm(dim=1).min())
        assert np.linalg.norm(step - expected) < 1e-6 * least, name


@pytest.mark.parametrize("ratio", [1, *RATIOS])
@pytest.mark.parametrize("radius", [0.2, 0.9])
def test_cagrad_is_certified_by_its_dual(ratio, radius, wrap):
    u, v, w, x = np.random.default_rng(3).normal(size=(4, SIZE))
    rows = [ratio * u, v - 0.5 * u, ratio * (w - u), x]
    updates = wrapped(wrap, rows)
    g, weights = updates.matrix.double().numpy(), updates.weights.double().numpy()
    mean, length = weights @ g, np.linalg.norm(g, axis=1)
    reach = radius * np.linalg.norm(mean)
    gram = updates.gram / updates.gram.diagonal().mean()
    c = CAGrad(radius=radius).coefficients(gram, updates.weights.double()).numpy()
    step = c @ g
    assert np.linalg.norm(step - mean) < reach * (1 + 1e-9)
    # By duality, any convex weights bound the worst inner product; these reach it.
    x = (c - weights) / (c - weights).sum()
    assert (x >= 0).all()
    bound = x @ g @ mean + reach * np.linalg.norm(x @ g)
    # A step is a sum of float32 numbers: what it does to a long update is no surer than that.
    close = 1e-6 * length.min() + 1e-8 * length.max()
    assert bound - (g @ step).min() < close * np.linalg.norm(step)


@pytest.mark.parametrize("ratio", RATIOS)
def test_nashmtl_bargains_at_any_length(ratio, wrap):
    u, v, w = np.random.default_rng(4).normal(size=(3, SIZE))
    updates = wrapped(wrap, [ratio * u, v - u, w, ratio * (w - u)])
    gram = updates.gram / updates.gram.diagonal().mean()
    weights = updates.weights.double()
    a = NashMTL().coefficients(gram, weights)
    products = a * (gram @ a) / weights
    torch.testing.assert_close(products, products.mean().expand(4), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", ["min", "rmse"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_alignedmtl_has_all_components_that_there_are(ratio, scale, wrap):
    u, v, w = np.random.default_rng(5).normal(size=(3, SIZE))
    # Two alike, one long and one short: three components, however unequal.
    for rows in ([ratio * u, v - u, w], [v, -0.3 * v, w, ratio * u]):
        updates = wrapped(wrap, rows)
        left, s, right = np.linalg.svd(updates.matrix.double().numpy(), full_matrices=False)
        left, s, right = left[:, :3], s[:3], right[:3]
        of = s.min() if scale == "min" else np.sqrt((s**2).mean())
        expected = updates.weights.double().numpy() @ left @ right * of
        step = AlignedMTL(level="client", scale=scale).merge(updates).numpy()
        assert np.linalg.norm(step - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("rule", [PCGrad, FedMGDA])
def test_directions_do_not_depend_on_lengths(rule, draw):
    # Lengths enter by the weights alone: those of the projected updates, or of their mean.
    updates = draw(4, size=SIZE, common=0.0)
    factors = torch.tensor([1.0, 2.0**20, 2.0**-3, 2.0**7])
    longer = replace(updates, matrix=updates.matrix * factors[:, None])
    if rule is PCGrad:
        longer = replace(longer, weights=updates.weights / factors)
        assert (merge(rule, longer) - merge(rule, updates)).norm() < 1e-6 * typical(updates)
    else:
        step, expected = merge(rule, longer), merge(rule, updates)
        expected *= typical(longer) / typical(updates)
        assert (step - expected).norm() < 1e-6 * expected.norm()
