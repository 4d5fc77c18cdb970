import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from fedjoint.config.data import DataConfig
from fedjoint.data.sources.csv import Csv
from fedjoint.errors import UserError

TEXT = """name,age,city,sick,dose,tags
ann,30,a,yes,1.5,0 1
bob,41.5,b,no,,1 1
cy,7,a,yes,-2,0 0
"""
TARGETS = {"sick": "multiclass", "dose": "regression", "tags": "multilabel"}


def load(tmp_path, text=TEXT, **settings):
    file = tmp_path / "t.csv"
    file.write_text(text)
    own = {key: settings.pop(key) for key in ("partition", "by", "outputs") if key in settings}
    options = {"targets": TARGETS, "path": str(file)} | settings
    return Csv(**options).load(DataConfig.model_validate(own))


def test_columns_become_features_and_labels(tmp_path):
    dataset = load(tmp_path)
    assert dataset.examples.x.tolist() == [[30], [41.5], [7]]
    y = dataset.examples.y
    assert y["sick"].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(y["dose"], [[1.5], [np.nan], [-2]])
    assert y["tags"].tolist() == [[0, 1], [1, 1], [0, 0]]
    assert dataset.owner is None and dataset.strata is None


def test_owner_and_strata(tmp_path):
    dataset = load(tmp_path, partition="natural", client_column="city", by="name")
    assert dataset.owner.tolist() == ["a", "b", "a"]
    assert dataset.strata.tolist() == [0, 1, 2]
    # A client's name is no feature, even where the partition does not follow it.
    numbered = TEXT.replace("city", "ward").replace(",a,", ",1,").replace(",b,", ",2,")
    dataset = load(tmp_path, numbered, client_column="ward")
    assert dataset.examples.x.shape == (3, 1) and dataset.owner is None


def test_files_are_joined_by_column_name(tmp_path):
    (tmp_path / "u.csv").write_text("dose,sick,age,tags,city,name\n4,no,1,1 0,b,di\n")
    paths = [str(tmp_path / "t.csv"), str(tmp_path / "u.csv")]
    assert load(tmp_path, path=paths).examples.x[:, 0].tolist() == [30, 41.5, 7, 1]
    (tmp_path / "u.csv").write_text("dose,sick\n4,no\n")
    with pytest.raises(UserError, match=r"u\.csv:2: column 'age' is not in every file"):
        load(tmp_path, path=paths)


def test_quoted_line_ends_keep_the_line_numbers(tmp_path):
    with pytest.raises(UserError, match=r"t\.csv:4: feature 'age' is 'old'"):
        load(tmp_path, 'age,n,sick\n1,"a\nb",0\nold,c,1\n', targets={"sick": "multiclass"})


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (TEXT, {"targets": {"sik": "multiclass"}}, "unknown column 'sik'.*did you mean 'sick'"),
        (TEXT, {"features": ["agee"]}, "unknown column 'agee'.*did you mean 'age'"),
        (TEXT, {"features": ["city"]}, r"t\.csv:2: feature 'city' is 'a', not a finite number"),
        (TEXT.replace("41.5", ""), {}, r"t\.csv:3: feature 'age' is '', not a finite number"),
        (TEXT.replace("41.5", "inf"), {}, r"t\.csv:3: feature 'age' is 'inf'"),
        (TEXT.replace(",b,", ","), {}, r"t\.csv:3: 5 cells, but the header has 6"),
        (TEXT.replace("age", "name"), {}, r"t\.csv:1: two columns have the same name"),
        (TEXT.splitlines()[0], {}, "t.csv: the table has no rows"),
        ("", {}, "the table has no rows"),
        ('a,b\n"1,2\n', {}, r"t\.csv:2: not valid CSV"),
        (TEXT, {"outputs": {"sick": 1}}, r"t\.csv:2: label 'yes' of 'sick' is class 1"),
        (TEXT.replace("30,", ",", 1), {}, r"t\.csv:2: feature 'age' is '', not a finite number"),
        (
            TEXT.replace(",b,", ", ,"),
            {"partition": "natural", "client_column": "city"},
            r"t\.csv:3: client_column 'city' is empty; name the row's client",
        ),
        ("c,sick\nx,1\ny,0\n", {"targets": {"sick": "multiclass"}}, "no column of numbers"),
    ],
)
def test_malformed_tables(tmp_path, text, settings, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, text, **settings)


def test_parquet_is_read_like_csv(tmp_path):
    columns = {
        "age": [30.0, 41.5, 7.0],
        "sick": ["yes", "no", "yes"],
        "dose": [1.5, None, -2.0],
        "tags": [[0, 1], [1, 1], [0, 0]],
    }
    file = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table(columns), file)
    read, expected = load(tmp_path, path=str(file)).examples, load(tmp_path).examples
    assert read.x.equal(expected.x)
    for name in TARGETS:
        np.testing.assert_array_equal(read.y[name], expected.y[name])
    whole = file.read_bytes()
    for at in range(4, len(whole) // 2, 7):  # a page broken in the middle: one line, or read
        file.write_bytes(whole[:at] + b"\xff" * 24 + whole[at + 24 :])
        try:
            load(tmp_path, path=str(file))
        except UserError as error:
            assert "\n" not in str(error)
    file.write_bytes(whole[:4] + b"\xff" * 24 + whole[28:])
    with pytest.raises(UserError, match=r"t\.parquet: not a Parquet file, or a broken one: "):
        load(tmp_path, path=str(file))
    file.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"t\.parquet: not a Parquet file"):
        load(tmp_path, path=str(file))
