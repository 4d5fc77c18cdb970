import numpy as np
import pytest

from fedjoint.data.labels import read_labels
from fedjoint.errors import UserError


def place(i):
    return f"f.csv:{i + 2}"


def test_integer_classes_and_a_missing_one():
    task, y = read_labels("t", "multiclass", ["2", "", "0", "1"], place)
    assert (task.outputs, y.tolist()) == (3, [2, -1, 0, 1])


def test_text_classes_are_numbered_in_sorted_order():
    task, y = read_labels("t", "multiclass", ["pear", "apple", "pear", "fig"], place)
    assert (task.outputs, y.tolist()) == (3, [2, 0, 2, 1])


def test_declared_classes_need_not_all_occur():
    task, y = read_labels("t", "multiclass", ["4", "1"], place, outputs=10)
    assert (task.outputs, y.tolist()) == (10, [4, 1])


def test_vectors():
    task, y = read_labels("t", "regression", ["1.5 -2", "", "0 1e3"], place)
    assert task.outputs == 2
    np.testing.assert_array_equal(y, [[1.5, -2], [np.nan, np.nan], [0, 1000]])
    task, y = read_labels("t", "multilabel", ["0 1 1", "1 0 0"], place)
    assert (task.kind, task.outputs, y.tolist()) == ("multilabel", 3, [[0, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("kind", "cells", "outputs", "message"),
    [
        ("multiclass", ["0", "x"], None, r"f.csv:3: label 'x' of 't' is not a class from 0"),
        ("multiclass", ["0", "-1"], None, r"f.csv:3: label '-1'"),
        ("multiclass", ["0", "1_0"], None, r"f.csv:3: label '1_0'"),
        ("multiclass", ["0", "9" * 30], None, r"f.csv:3: label '9{30}'"),
        ("multiclass", ["1", "2"], None, r"f.csv:3: 't' has class 2 but never class 0"),
        ("multiclass", ["0", "999999999999"], None, r"never class 1"),
        ("multiclass", ["0", "1", "3"], 3, r"f.csv:4: label '3' .* data.outputs.t = 3 allows 0 to"),
        ("multiclass", ["a", "b", "c"], 2, r"f.csv:4: label 'c' of 't' is class 2"),
        ("multiclass", ["0", "0"], None, r"f.csv:2: 't' is '0' everywhere, which leaves nothing"),
        ("multiclass", ["", " "], None, r"f.csv:2: task 't' has no labels"),
        ("multilabel", ["0 1", "0 2"], None, r"f.csv:3: '0 2' of multilabel 't' is not all 0 and"),
        ("regression", ["1", "x"], None, r"f.csv:3: 'x' of 't' is not a number"),
        ("regression", ["1", "nan"], None, r"f.csv:3: 't' is 'nan': a missing value, or not\?"),
        ("regression", ["1 2", "1"], None, r"f.csv:3: '1' of 't' has 1 numbers, expected 2"),
        ("regression", ["1"], 2, r"f.csv:2: '1' of 't' has 1 numbers, expected 2"),
    ],
)
def test_malformed_cells_are_named(kind, cells, outputs, message):
    with pytest.raises(UserError, match=message):
        read_labels("t", kind, cells, place, outputs)
