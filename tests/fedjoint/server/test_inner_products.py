"""Inner products and combinations of updates, where float32 would lose them."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from fedjoint.model.layout import Layout
from fedjoint.server import updates as module
from fedjoint.server.agreement import diagnose
from fedjoint.server.updates import Updates, inner_products, rough_inner_products

MOST = float(torch.finfo(torch.float32).max)


def updates_of(matrix):
    rows, size = matrix.shape
    ones = torch.ones(rows, dtype=torch.int64)
    return Updates(
        matrix=matrix,
        weights=torch.full((rows,), 1 / rows),
        examples=ones,
        clients=torch.arange(rows),
        tasks=torch.ones(rows, 1, dtype=torch.bool),
        task_names=("a",),
        steps=ones,
        backbone=torch.zeros(size),
        layout=Layout({"w": (size,)}),
        round=1,
    )


def exact(matrix):
    """Return the inner products as fractions."""
    rows = [[Fraction(value) for value in row] for row in matrix.tolist()]
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


@pytest.mark.parametrize("block", [7, 100, 1 << 20])
def test_inner_products_are_exact_but_for_the_last_digits(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    random = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 300, generator=random) + 1e4 * torch.randn(300, generator=random)
    found, right = inner_products(matrix), exact(matrix)
    assert found.equal(found.T)  # to the bit
    expected = torch.tensor([[float(v) for v in row] for row in right], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    for i, j in [(0, 1), (2, 3)]:  # the distances of rows that have much in common
        square = float(right[i][i] + right[j][j] - 2 * right[i][j])
        assert float(found[i, i] + found[j, j] - 2 * found[i, j]) == pytest.approx(square, rel=1e-5)


def test_no_inner_product_overflows_or_vanishes():
    matrix = torch.tensor([[MOST, -MOST, MOST], [1e-38, 0.0, 1e-38], [0.0, 0.0, 0.0]])
    expected = matrix.double() @ matrix.double().T
    assert (expected[:2, :2] != 0).all()
    torch.testing.assert_close(inner_products(matrix), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_inner_products_of_nothing(shape):
    assert inner_products(torch.zeros(shape)).equal(torch.zeros(shape[0], shape[0]).double())


@pytest.mark.parametrize("width", [7, 1 << 13])
def test_rough_inner_products_are_as_good_as_float32(width, monkeypatch):
    monkeypatch.setattr(module, "_ROUGH", width)
    matrix = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0))
    matrix[1] = 0
    matrix *= torch.tensor([1.0, 1.0, 1e6, 1e-6, 1.0])[:, None]
    found, expected = rough_inner_products(matrix), inner_products(matrix)
    assert found.equal(found.T)
    lengths = expected.diagonal().sqrt()
    assert ((found - expected).abs() <= 1e-6 * torch.outer(lengths, lengths)).all()


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_rough_inner_products_are_exact_where_float32_fails(scale):
    matrix = torch.tensor([[scale, scale, 0.0], [1.0, 2.0, 3.0]])
    assert rough_inner_products(matrix).equal(inner_products(matrix))


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_a_combination_in_float64_keeps_what_does_not_cancel_out(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    random = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 50, generator=random)
    updates = updates_of(torch.stack([u, u + 1e-6 * v, 1e37 * v]))
    c = torch.tensor([1e6, -1e6, 1e-46], dtype=torch.float64)  # the last is zero in float32
    expected = (c @ updates.matrix.double()).float()
    torch.testing.assert_close(updates.combine(c), expected, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(updates.combine(c.float()), expected, atol=1e-4)


def test_updates_of_any_length_are_compared():
    updates = updates_of(torch.tensor([[MOST, MOST], [MOST, -MOST], [-1e-30, 0.0]]))
    said = diagnose(updates, torch.ones(2), updates.clients, updates.gram)
    json.dumps(said, allow_nan=False)
    half = 0.5**0.5
    expected = [[1, 0, -half], [0, 1, -half], [-half, -half, 1]]
    np.testing.assert_allclose(said["clients"]["cosine"], expected, atol=1e-9)
