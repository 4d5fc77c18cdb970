"""Small Parquet files that unpack to much are refused before they are read."""

import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedjoint.data.tabular import read_parquet
from fedjoint.errors import UserError

ROWS = 100_000
LONG = "z" * 200_000  # as often as there are rows: 20 GB


def repeated(values):
    """Return an array of the one value, which takes next to nothing."""
    return pa.DictionaryArray.from_arrays(np.zeros(ROWS, np.int32), values)


BOMBS = {
    "one long text": {"s": repeated([LONG])},
    "one long text in lists": {
        "s": pa.ListArray.from_arrays(np.arange(ROWS + 1, dtype=np.int32), repeated([LONG]))
    },
    "one image": {
        "img": pa.StructArray.from_arrays([repeated([LONG.encode()])], ["bytes"]),
    },
}


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    for module in ("fedjoint._util.memory", "fedjoint.data.unpacked"):
        monkeypatch.setattr(f"{module}.allowed_bytes", lambda: 10**9)


@pytest.mark.parametrize("what", BOMBS)
def test_a_value_that_repeats_is_measured_before_it_is_unpacked(what, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(BOMBS[what]), path, store_schema=False)
    assert path.stat().st_size < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"texts and bytes: about 1.* GB, and this machine has 1:"):
        read_parquet(path)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 900_000
    )  # kB: less than there is


def test_numbers_are_counted_by_the_footer(tmp_path):
    table = pa.table({"x": np.zeros(10**6), "y": np.zeros(10**6)})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as file:
        for _ in range(40):
            file.write_table(table)
    with pytest.raises(UserError, match=r"40000000 rows of 80000000 values: about 1.28 GB"):
        read_parquet(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_string(), pa.int8()])
def test_what_fits_is_read_as_it_is(kind, tmp_path):
    values = [0, 1, None] if kind == pa.int8() else ["a", "bc", None]
    inner = pa.array(values, kind) if kind != pa.binary() else pa.array([b"a", b"bc", None])
    table = pa.table(
        {
            "flat": inner,
            "list": pa.ListArray.from_arrays(pa.array([0, 1, 1, 3], pa.int32()), inner),
            "part": pa.StructArray.from_arrays([inner], ["bytes"]),
            "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet").equals(table)
