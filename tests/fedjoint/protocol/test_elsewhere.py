"""Rows that stay where they were made."""

import numpy as np

from fedjoint.protocol.elsewhere import Elsewhere


def test_what_is_scaled_twice_has_both_factors():
    rows = np.array([[3.0, -4.0], [6.0, 8.0]], np.float32)
    twice = Elsewhere(rows).scaled(np.array([0.5, 1.0])).scaled(np.array([0.5, 0.25]))
    assert twice.factors.tolist() == [0.25, 0.25]
    assert twice.lengths.tolist() == [1.25, 2.5]
    assert twice.peaks.tolist() == [peak / 4 for peak in Elsewhere(rows).peaks]
