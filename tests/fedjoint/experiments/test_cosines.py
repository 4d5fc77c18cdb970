"""The mean over rounds of what records tell of the tasks' updates."""

import numpy as np
from support.records import make_record

from fedjoint.experiments.cosines import mean_cosines


def record(round, ids, cosine):
    return make_record(round, diagnostics={"tasks": {"ids": ids, "cosine": cosine}})


def test_each_pair_has_the_mean_of_the_rounds_that_tell_it():
    records = [
        record(1, ["b", "a"], [[1.0, 0.5], [0.5, 1.0]]),
        record(2, ["a", "b", "c"], [[1.0, -0.1, None], [-0.1, 1.0, 0.25], [None, 0.25, 1.0]]),
        make_record(3),  # without diagnostics
        make_record(4, diagnostics={"clients": {}}),
        record(5, ["c"], [[1.0]]),
        record(6, [], []),
    ]
    found = mean_cosines(records, ["a", "b", "c"])
    expected = [[1.0, 0.2, np.nan], [0.2, 1.0, 0.25], [np.nan, 0.25, 1.0]]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(mean_cosines([], ["a", "b"])).all()
