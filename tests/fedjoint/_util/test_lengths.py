"""Lengths of rows, against NumPy's in float64."""

import numpy as np
import pytest

from fedjoint._util.lengths import squared_lengths


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_lengths_are_those_of_float64(size, dtype):
    rows = np.random.default_rng(0).standard_normal((3, size)).astype(dtype)
    expected = np.linalg.norm(rows.astype(np.float64), axis=1)
    np.testing.assert_allclose(np.sqrt(squared_lengths(rows)), expected, rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-25, 1e-15, 1e14, 1e17, 1e30, 3e38])
def test_what_is_beyond_float32_is_told_as_well(scale):
    rows = np.full((2, 1000), scale, np.float32)
    rows[1] = 1
    expected = np.linalg.norm(rows.astype(np.float64), axis=1)
    np.testing.assert_allclose(np.sqrt(squared_lengths(rows)), expected, rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_a_number_that_is_not_finite_has_no_finite_length(bad):
    rows = np.ones((3, 20_000), np.float32)
    rows[1, -1] = bad
    assert np.isfinite(squared_lengths(rows)).tolist() == [True, False, True]
