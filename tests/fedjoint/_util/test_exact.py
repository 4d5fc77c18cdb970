"""Sums have the same bits in any order, and are what fractions say, to a quantum for each row."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from fedjoint._util.exact import Term, combine, peaks, quantum, total

WIDE = 40_000  # more numbers than are worked on at a time


def rows_and_weights(kind, size=50):
    rng = np.random.default_rng(1)
    count = 21
    rows = rng.normal(size=(count, size)).astype(np.float32)
    weights = rng.random(count)
    if kind == "spread":
        rows *= np.float32(10.0) ** rng.integers(-12, 12, (count, size)).astype(np.float32)
    elif kind == "tiny":
        rows *= np.float32(1e-42)
    elif kind == "huge":
        rows = (rows / np.abs(rows).max() * np.finfo(np.float32).max).astype(np.float32)
    elif kind == "opposed":
        rows[1::2] = -rows[:-1:2]
        weights[1::2] = weights[:-1:2]
    elif kind == "halves":  # of a quantum, where a sum that rounds as it goes depends on the order
        rows, weights = np.ones((count, size), np.float32), np.ones(count)
        rows[1:] = np.float32(2.0**-48) * 1.5
        rows[2::2] *= -1
    return rows, (weights / weights.sum()).tolist()


KINDS = ["usual", "spread", "tiny", "huge", "opposed", "halves"]


def in_random_groups(terms, quanta, seed):
    """Sum ``terms`` in a random order and random groups, over and over, until one is left."""
    chance = random.Random(seed)
    while len(terms) > 1:
        chance.shuffle(terms)
        cut = chance.randint(2, len(terms))
        terms = combine(terms[:cut], quanta) + terms[cut:]
    return total(terms, quanta[7])


@pytest.mark.parametrize("kind", KINDS)
def test_no_order_and_no_grouping_changes_a_bit(kind):
    rows, weights = rows_and_weights(kind)
    q = quantum(weights, peaks(rows).tolist())
    terms = [Term(7, row, weight) for row, weight in zip(rows, weights, strict=True)]
    whole = total(terms, q)
    for seed in range(20):
        assert in_random_groups(list(terms), {7: q}, seed).tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_is_right_to_half_a_quantum_for_each_row(kind):
    rows, weights = rows_and_weights(kind, 20)
    q = quantum(weights, peaks(rows).tolist())
    found = total([Term(0, r, w) for r, w in zip(rows, weights, strict=True)], q)
    bound = sum(Fraction(w) * Fraction(float(p)) for w, p in zip(weights, peaks(rows), strict=True))
    assert Fraction(q) <= bound / 2**49
    for column in range(20):
        exact = sum(
            Fraction(w) * Fraction(float(x)) for w, x in zip(weights, rows[:, column], strict=True)
        )
        # A product of a weight, too, is rounded, by far less.
        assert abs(Fraction(float(found[column])) - exact) <= len(rows) * Fraction(q) * 6 / 10


def test_a_usual_mean_is_the_nearest_float32():
    rows, weights = rows_and_weights("usual", WIDE)
    q = quantum(weights, peaks(rows).tolist())
    found = total([Term(0, r, w) for r, w in zip(rows, weights, strict=True)], q)
    best = [
        math.fsum(w * float(x) for w, x in zip(weights, column, strict=True)) for column in rows.T
    ]
    assert (found.astype(np.float32) == np.array(best).astype(np.float32)).mean() > 0.999


def test_what_is_alone_in_its_slot_stays_float32():
    row = np.ones(3, np.float32)
    terms = [Term(0, row, 0.5), Term(2, row, 0.25), Term(0, row, 0.5)]
    found = {term.slot: term for term in combine(terms, {0: 2.0**-50, 2: 2.0**-52})}
    assert found[2].row is row and found[2].weight == 0.25
    assert found[0].row.dtype == np.float64 and found[0].row.tolist() == [1, 1, 1]


def test_rows_of_nothing_and_of_zeros():
    assert peaks(np.zeros((2, 0), np.float32)).tolist() == [0, 0]
    assert peaks(np.array([[1.0, -3.0], [0.0, 2.0]], np.float32)).tolist() == [3, 2]
    q = quantum([1.0], [0.0])
    assert total([Term(0, np.zeros(4, np.float32), 1.0)], q).tolist() == [0, 0, 0, 0]
