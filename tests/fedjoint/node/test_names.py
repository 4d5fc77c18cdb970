"""What a node tells of its inputs and classes: the names of the one, a digest of the others."""

import numpy as np

from fedjoint.config.load import check
from fedjoint.node.names import named
from fedjoint.problem import build_problem


def told(tmp_path, labels, columns=("age", "weight")):
    rng = np.random.default_rng(0)
    rows = [[f"{v:.3f}" for v in rng.normal(size=len(columns))] for _ in range(12)]
    lines = [",".join([*columns, "ill"])]
    lines += [",".join([*row, labels[i % len(labels)]]) for i, row in enumerate(rows)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(lines) + "\n")
    options = {"path": str(path), "targets": {"ill": "multiclass"}}
    data = {"clients": 1, "source": {"name": "csv", "options": options}}
    return named(build_problem(check({"data": data})))


def test_columns_are_named_and_the_names_of_classes_stay(tmp_path):
    columns, one = told(tmp_path, ["cold", "flu"])
    assert columns == ["age", "weight"]
    _, other = told(tmp_path, ["flu", "well"])
    _, again = told(tmp_path, ["flu", "cold"])
    assert one == again != other and one.keys() == {"ill"}
    assert "flu" not in str(one)


def test_numbered_classes_have_no_names(tmp_path):
    assert told(tmp_path, ["0", "1"])[1] == {}
    assert told(tmp_path, ["0", "1"], ("x",))[0] == ["x"]
