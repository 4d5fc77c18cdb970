"""Task vectors as one: the rule coordinate by coordinate, and bits against NumPy's."""

import numpy as np
import pytest
import torch

from fedjoint.training.unified import key, packed, unified, unpacked


def by_hand(vectors):
    """The docstring's rule for ``[tasks, P]``, in plain loops."""
    tasks, size = vectors.shape
    vector, masks = np.zeros(size), np.zeros((tasks, size), bool)
    for p in range(size):
        sign = np.sign(vectors[:, p].sum())
        vector[p] = sign * max((abs(v) for v in vectors[:, p] if v * sign > 0), default=0)
        masks[:, p] = vectors[:, p] * sign > 0
    factors = [
        np.abs(v).sum() / np.abs(vector[m]).sum() for v, m in zip(vectors, masks, strict=True)
    ]
    return vector, masks, np.array(factors)


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_it_is_the_rule_for_each_of_several_clients(tasks):
    vectors = torch.randn(3, tasks, 40, generator=torch.Generator().manual_seed(tasks))
    found = unified(vectors)
    for client in range(3):
        vector, masks, factors = by_hand(vectors[client].double().numpy())
        np.testing.assert_allclose(found.vector[client], vector, rtol=1e-6)
        assert (found.masks[client].numpy() == masks).all()
        np.testing.assert_allclose(found.factors[client], factors, rtol=1e-5)
        rebuilt = factors[:, None] * masks * vector
        np.testing.assert_allclose(found.vectors()[client], rtol=1e-5, desired=rebuilt)


def test_vectors_of_one_task_or_of_other_coordinates_come_back_as_they_were():
    one = torch.randn(1, 9)
    torch.testing.assert_close(unified(one).vectors(), one)
    # Each has coordinates of its own, on which nobody else moves.
    apart = torch.tensor([[1.0, -2, 0, 0], [0, 0, 3, -0.5]])
    torch.testing.assert_close(unified(apart).vectors(), apart)


def test_what_cancels_out_and_what_is_nothing_stay_finite():
    v = torch.randn(400, generator=torch.Generator().manual_seed(0))
    found = unified(torch.stack([v, 0.1 * v, -1.1 * v]))  # their sum is zero, but for rounding
    assert not found.vector.any() and not found.masks.any() and not found.factors.any()
    nothing = unified(torch.zeros(2, 5))
    assert not nothing.vectors().any() and nothing.factors.isfinite().all()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 65])
def test_bits_are_numpy_s_and_come_back(size):
    masks = torch.rand(2, 3, size, generator=torch.Generator().manual_seed(size)) < 0.5
    bits = packed(masks)
    expected = np.packbits(masks.numpy(), axis=-1, bitorder="little")
    assert bits.dtype == torch.uint8 and (bits.numpy() == expected).all()
    assert torch.equal(unpacked(bits, size), masks)


def test_a_set_of_tasks_has_one_name():
    assert key(["b", "a"]) == key(["a", "b"]) != key(["a"])


def test_it_makes_what_the_published_code_of_emr_merging_makes():
    # https://github.com/harveyhuang18/EMR_Merging gave these numbers, of one flat parameter.
    vectors = torch.tensor(
        [
            [0.5, -0.3, 0.2, -0.1, 0.4, 0.7],
            [0.1, 0.6, -0.3, -0.5, 0.3, -0.2],
            [-0.4, -0.8, 0.6, 0.2, 0.1, -0.9],
        ]
    )
    found = unified(vectors)
    torch.testing.assert_close(found.vector, torch.tensor([0.5, -0.8, 0.6, -0.5, 0.4, -0.9]))
    masks = [[1, 1, 1, 1, 1, 0], [1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1]]
    assert found.masks.int().tolist() == masks
    torch.testing.assert_close(found.factors, torch.tensor([0.7857142, 0.8695652, 1.1111113]))
