"""Files that could be read as something else: what is read, and what is said.

A case is a line: the files, the source, its options, and either the line that refuses them, or
``Read`` with what has to come of them.
"""

import gzip
import logging
import re
import struct
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.plugins import plugin

from fedjoint.config.data import DataConfig
from fedjoint.data.build import make_source
from fedjoint.errors import UserError

CLASS = {"targets": {"c": "multiclass"}}
SIZE = {"targets": {"c": "regression"}}


@dataclass
class Read:
    """What is read: inputs and labels of the first examples, and what the line says."""

    x: list | None = None
    y: list | None = None
    says: str = ""


def table(*x, c="0 1 0 1", header="x,z,c", more=""):
    """Four rows of a table: ``x`` is the column in question, ``z`` a plain one."""
    labels = c.split(" ")
    rows = [
        f"{cell},{i}.5,{label}{more}" for i, (cell, label) in enumerate(zip(x, labels, strict=True))
    ]
    return "\n".join([header, *rows]) + "\n"


def idx(array, code):
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def parquet(**columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


BYTES = np.arange(36, dtype="u1").reshape(4, 3, 3)
FLOATS = (BYTES / 255).astype("f4")
LABELS = idx(np.array([0, 1, 0, 1], "u1"), 8)
NAN, HUGE = FLOATS.copy(), FLOATS.astype("f8")
NAN[2, 0, 0], HUGE[1, 0, 0] = np.nan, 1e300
PIXELS = {"path": ["i", "l"]}

COLUMNS = {  # the column x of a table -> what is said of it
    "decimal commas": ('"1,5" "2,5" "3,5" "4,5"', r"a.csv:2: feature 'x' is '1,5', not a finite"),
    "thousands with spaces": ("1 000|2 000|3 000|4", r":2: feature 'x' is '1 000', not a finite"),
    "thousands with points": ("1.000.000|2.000.000|3.000.000|4", r"'x' is '1.000.000', not a"),
    "thousands with commas": ('"1,000"|"2,000"|"3,000"|"4,000"', r"'x' is '1,000', not a finite"),
    "all with underscores": ("1_000 1_000 2_0 3_0", r":2: feature 'x' is '1_000'"),
    "NA first": (
        "NA 1 2 3",
        r"a.csv:2: feature 'x' is 'NA', not a finite number such as -1.5; fix",
    ),
    "NA later": ("1 2 NA 3", r"a.csv:4: feature 'x' is 'NA'"),
    "a question mark first": ("? 1 2 3", r":2: feature 'x' is '\?'"),
    "currency": ("$5 $6 $7 $8", r":2: feature 'x' is '\$5'"),
    "currency first": ("$5 6 7 8", r":2: feature 'x' is '\$5'"),
    "euro after": ("5€ 6€ 7€ 8€", r":2: feature 'x' is '5€'"),
    "percent": ("5% 6% 7% 8%", r":2: feature 'x' is '5%'"),
    "a date first": ("2020-01-01 1 2 3", r":2: feature 'x' is '2020-01-01'"),
    "Arabic digits": ("١ ٢ ٣ ٤", r":2: feature 'x' is '١'"),
    "full-width digits": ("１ 2 3 4", r":2: feature 'x' is '１'"),
    "a minus of typography": ("−1 −2 −3 −4", r":2: feature 'x' is '−1'"),
    "infinite": ("1 inf 2 3", r":3: feature 'x' is 'inf'"),
    "NaN": ("1 nan 2 3", r":3: feature 'x' is 'nan'"),
    "hexadecimal": ("0x1F 1 2 3", r":2: feature 'x' is '0x1F'"),
    "empty": ("1  2 3", r":3: feature 'x' is ''"),
    "beyond float32": ("1 1e39 2 3", r"a.csv:3: feature 'x' is 1e\+39, not finite in float32"),
    "beyond float64": ("1 1e400 2 3", r":3: feature 'x' is '1e400'"),
    "codes that begin as numbers": ("12 B12 7 8", r":3: feature 'x' is 'B12'.*drop = \['x'\]"),
    "epoch milliseconds": (
        "1700000000000 1700000001000 1700000002000 1700000003000",
        r"a.csv:2: feature 'x' goes from 1700000000000 to 1700000003000, and float32 is too coarse",
    ),
    "tiny differences": ("1e9 1000000001 1000000002 1000000003", r"float32 is too coarse"),
    "text": ("ann bob cy di", Read(x=[[0.5], [1.5]], says=r"left out 'x' \(text\)")),
    "dates": ("2020-01-01 2020-01-02 1/2/20 12:30", Read(says=r"left out 'x' \(dates\)")),
    "codes": ("A-1 B-2 C-3 4d", Read(says=r"left out 'x' \(text\)")),
    "nothing": ("   ", Read(x=[[0.5]], says=r"left out 'x' \(empty\)")),
    "only NA": ("NA NA NA NA", Read(says=r"left out 'x' \(empty\)")),
    "numbers": ("+1 2. .5 -1e3", Read(x=[[1, 0.5], [2, 1.5], [0.5, 2.5], [-1000, 3.5]])),
    "constant": ("0.1 0.1 0.1 0.1", Read(says="inputs 2 columns: x, z")),
}


def csv(text, expected, **options):
    return {"a.csv": text}, plugin("csv", **({"path": "a.csv"} | CLASS | options)), expected


def two(first, second, expected, **options):
    paths = {"path": ["a.csv", "b.csv"]}
    files = {"a.csv": first, "b.csv": second}
    return files, plugin("csv", **(CLASS | paths | options)), expected


def words(files, expected, **options):
    if isinstance(files, str | bytes):
        files = {"a.txt": files}
    return files, plugin("text", **({"path": "."} | options)), expected


def images(expected, pixels=None, **files):
    files = {"i": idx(BYTES, 8) if pixels is None else pixels, "l": LABELS} | files
    return files, plugin("idx", path=list(files)), expected


def columns(expected, options=CLASS, **columns):
    own = {"x": np.arange(4.0), "c": [0, 1, 0, 1]} | columns
    return {"a.parquet": parquet(**own)}, plugin("csv", path="a.parquet", **options), expected


PLAIN = table("1", "2", "3", "4")

CASES = {
    **{
        f"column of {k}": csv(table(*c.split("|" if "|" in c else " ")), e)
        for k, (c, e) in COLUMNS.items()
    },
    # labels
    "1 and 1.0": csv(table(*"1234", c="0 1 1.0 0"), Read(y=[0, 1, 1, 0], says="2 classes")),
    "all 1.0": csv(table(*"1234", c="0.0 1.0 1.0 0.0"), Read(y=[0, 1, 1, 0])),
    "halves": csv(table(*"1234", c="0.5 1.5 0.5 1.5"), r":2: label '0.5' of 'c' is not a class"),
    "words and numbers": csv(table(*"1234", c="a 1 a 1"), r":2: label 'a' .*all as words"),
    "NaN among words": csv(table(*"1234", c="a b NaN a"), r":4: 'c' is 'NaN': a missing value, or"),
    "NA among numbers": csv(table(*"1234", c="0 1 NA 1"), r"'NA': .*missing = \['NA'\]"),
    "NA declared missing": csv(
        table(*"1234", c="a b NA a"), Read(y=[0, 1, -1, 0], says="1 missing"), missing=["NA"]
    ),
    "NA declared a class": csv(table(*"1234", c="a b NA a"), Read(y=[1, 2, 0, 1]), missing=[]),
    "Yes and yes": csv(table(*"1234", c="Yes no yes no"), r"'Yes' and 'yes': one, or two\?"),
    "two forms of one letter": csv(table(*"1234", c="é b e\u0301 b"), r"one, or two\?"),
    "1_000 as target": csv(table(*"1234", c="1_000 2 3 4"), r":2: '1_000' of 'c' is not", **SIZE),
    "Arabic target": csv(table(*"1234", c="١ 2 3 4"), r":2: '١' of 'c' is not a number", **SIZE),
    "comma in target": csv(table(*"1234", c='"1,5" 2 3 4'), r":2: '1,5' of 'c' is not", **SIZE),
    "infinite target": csv(table(*"1234", c="inf 2 3 4"), r":2: 'inf' of 'c' is not", **SIZE),
    "NaN target": csv(table(*"1234", c="1 nan 3 4"), r":3: 'c' is 'nan': a missing", **SIZE),
    "target beyond float32": csv(table(*"1234", c="1e39 2 3 4"), "not finite in float32", **SIZE),
    "target in milliseconds": csv(
        table(*"1234", c="1700000000000 1700000001000 1700000002000 1700000003000"),
        r"target 'c' goes from .* float32 is too coarse",
        **SIZE,
    ),
    "an id as class": csv(
        table(*"1234567890", c="a b c d e f g h i j"), "a class of its own, 10 in all"
    ),
    "one class twice": csv(table(*"1234567890", c="a b c d e f g h i i"), Read(says="9 classes")),
    "one target everywhere": csv(table(*"1234", c="7 7 7 7"), "'c' is 7 everywhere", **SIZE),
    "one input everywhere": csv(
        "x,c\n" + "1,0\n1,1\n" * 5, "a.csv: all examples have the same inputs"
    ),
    # clients
    "NaN as a client": csv(
        table("a", "NaN", "b", "b"), r":3: 'x' is 'NaN': a missing", client_column="x"
    ),
    "an empty client": csv(
        table("a", " ", "b", "b"), r":3: client_column 'x' is empty", client_column="x"
    ),
    "clients 1 and 1.0": csv(
        table("1", "1.0", "2", "2"), r"client_column 'x' has '1' and '1.0'", client_column="x"
    ),
    "clients A and a": csv(
        table("A", "a", "b", "b"), r"client_column 'x' has 'A' and 'a'", client_column="x"
    ),
    # uses of columns
    "target as feature": csv(PLAIN, r"'c' is named in .*features and in targets", features=["c"]),
    "client as feature": csv(
        PLAIN, r"'x' is named in .*client_column and in features", features=["x"], client_column="x"
    ),
    "target as client": csv(PLAIN, r"'c' .*client_column and in targets", client_column="c"),
    "feature twice": csv(PLAIN, r"'x' is named in .*features twice", features=["x", "x"]),
    "dropped feature": csv(
        PLAIN, r"'x' is named .*drop and in features", features=["x"], drop=["x"]
    ),
    "column dropped": csv(table(*"abcd"), Read(x=[[0.5]]), drop=["x"]),
    "no such column dropped": csv(PLAIN, "unknown column 'y'", drop=["y"]),
    "no target": csv(PLAIN, "targets names no column", targets={}),
    # headers and rows
    "duplicate header": csv(table(*"1234", header="x,x,c"), r"a.csv:1: two columns .* 'x'"),
    "duplicate but for spaces": csv(table(*"1234", header="x, x ,c"), r"a.csv:1: two columns"),
    "no header": csv("1,2,0\n3,4,1\n", r"a.csv:1: the first line has the number 1; it has to name"),
    "a column without name": csv(
        table(*"1234", header=",z,c"), Read(x=[[0.5]], says=r"left out '' \(no name\)")
    ),
    "an index": csv(
        table(*"1234", header="Unnamed: 0,z,c"), Read(x=[[0.5]], says=r"'Unnamed: 0' \(an index")
    ),
    "a line end in a name": csv(
        table(*"abcd", header='"x\ny",z,c'), Read(x=[[0.5]], says="left out 'x.*y'")
    ),
    "a longer row": csv(PLAIN + "5,6,0,7\n", r"a.csv:6: 4 cells, but the header has 3"),
    "a shorter row": csv(PLAIN + "5,6\n", r"a.csv:6: 2 cells, but the header has 3"),
    "a trailing comma": csv(table(*"1234", more=","), r"a.csv:2: 4 cells, but the header has 3"),
    "an open quote": csv(PLAIN + '"5,6,0\n', r"a.csv:6: (not valid CSV|1 cells)"),
    "semicolons": csv(PLAIN.replace(",", ";"), r"unknown column 'c': allowed are x;z;c"),
    "semicolons declared": csv(PLAIN.replace(",", ";"), Read(x=[[1, 0.5]]), delimiter=";"),
    "tabs": (
        {"a.tsv": PLAIN.replace(",", "\t")},
        plugin("csv", path="a.tsv", **CLASS),
        Read(x=[[1, 0.5]]),
    ),
    "no delimiter": csv(PLAIN, "give one character", delimiter=", "),
    # encodings
    "a NUL": csv(PLAIN.replace("3", "\0"), r"a.csv:4: holds a NUL"),
    "a mark at the start": csv("\ufeff" + PLAIN, Read(x=[[1, 0.5]])),
    "a mark, encoding given": csv("\ufeff" + PLAIN, Read(x=[[1, 0.5]]), encoding="utf-8"),
    "a mark amid": csv(PLAIN + "\ufeff5,6,0\n", r"a.csv:6: holds a byte-order mark amid"),
    "ends of an old Mac": csv(PLAIN.replace("\n", "\r"), r"a.csv:1: holds a carriage return"),
    "UTF-16": csv(PLAIN.encode("utf-16"), Read(x=[[1, 0.5]])),
    "Latin-1": csv(
        table(*"éèàü").encode("latin-1"), Read(says="a.csv is not UTF-8 and was read as Latin-1")
    ),
    **{
        f"encoding {name!r}": csv(PLAIN, r"encoding .* is unknown, or reads no such", encoding=name)
        for name in ("klingon", "punycode", "undefined", "rot13", "a\0b")
    },
    # several files
    "listed twice": csv(PLAIN, r"a.csv is listed twice", path=["a.csv", "a.csv"]),
    "listed by another path": csv(PLAIN, "is the same file as", path=["a.csv", "./x/../a.csv"]),
    "listed by a link": csv(PLAIN, "is the same file as", path=["a.csv", "link"]),
    "listed and in a folder": csv(
        PLAIN, "is the same file as|is listed twice", path=["a.csv", "."]
    ),
    "a copy": two(PLAIN, PLAIN, r"b.csv holds the same as .*a.csv"),
    "a copy as test set": two(PLAIN, PLAIN, r"holds the same as", path="a.csv", test_path="b.csv"),
    "other columns": two(PLAIN, table(*"5678", header="x,y,c"), r"column 'y' is not in every file"),
    "a copy in another order": two(
        "x,c\n1,0\n2,1\n", "x,c\n2,1\n1,0\n", "b.csv holds the same examples as a.csv"
    ),
    "a README beside": (
        {"README.md": "# hello\n", "LICENSE": "yes\n", "a.csv": PLAIN},
        plugin("csv", path=".", **CLASS),
        Read(says="read a.csv: 4 examples"),
    ),
    "rows that are there twice": csv(
        PLAIN + PLAIN.partition("\n")[2], Read(says="4 examples repeat")
    ),
    "training rows in the test set": two(
        table(*"1234"),
        table(*"12", c="0 1"),
        Read(says="2 test examples are training examples, too"),
        path="a.csv",
        test_path="b.csv",
    ),
    "joined": two(PLAIN, table(*"5678"), Read(says="a.csv, b.csv: 8 examples")),
    "an empty list": csv(PLAIN, "options.path names no file", path=[]),
    "a long name": csv(PLAIN, "File name too long; fix data.source", path="x" * 300),
    "a NUL in a name": csv(PLAIN, "(no such file or folder|null).*; fix data.source", path="a\0b"),
    # test sets
    "split column": csv(
        table("train", "test", "dev", "Train"),
        Read(says="2 training, 1 validation, 1 test"),
        split_column="x",
    ),
    "a split that is none": csv(
        table("train", "test", "tset", "dev"), r"a.csv:4: 'x' is 'tset', not", split_column="x"
    ),
    "a test file": two(
        PLAIN, table(*"5678"), Read(says="4 training, 4 test"), path="a.csv", test_path="b.csv"
    ),
    "a third file": (
        {n: table(*n[:4]) for n in ("1234.train.csv", "5678.test.csv", "9012.csv")},
        plugin("csv", path=".", **CLASS),
        "9012.csv: other files are for training or test by their names, and this is neither",
    ),
    # Parquet
    "a table packed by gzip": csv(gzip.compress(PLAIN.encode()), "a.csv: it is packed by gzip"),
    "a workbook": csv(b"PK\x03\x04\0\0", r"a.csv: it is a ZIP archive, such as .xlsx: save it"),
    "Parquet by another name": csv(parquet(x=[1.0]), "a.csv: it is Parquet: end its name in"),
    "Parquet milliseconds": (
        {"a.parquet": parquet(x=[[1.7e12 + i] for i in range(4)], c=[0, 1, 0, 1])},
        plugin("parquet", path="a.parquet", **CLASS),
        "a.parquet: 'x': float32 is too coarse for the differences of numbers such as 17000000000",
    ),
    "Parquet lists of nothing": (
        {"a.parquet": parquet(x=pa.array([[], []], pa.list_(pa.float64())), c=[0, 1])},
        plugin("parquet", path="a.parquet", **CLASS),
        "a.parquet: 'x' has lists without numbers",
    ),
    "Parquet NaN label": columns(Read(y=[0, 1, -1, 1]), c=[0.0, 1.0, np.nan, 1.0]),
    "Parquet null label": columns(Read(y=[0, 1, -1, 1]), c=[0, 1, None, 1]),
    "Parquet NaN feature": columns(r"row 1: feature 'x' is ''", x=[0.0, np.nan, 1.0, 2.0]),
    "null in a list": columns(r"'c': a list holds a missing value", SIZE, c=[[1.0, None]] * 4),
    "lists of text": columns("column 'c' is lists of string, which", SIZE, c=[["a"]] * 4),
    "nested lists": columns("column 'c' is lists of list", SIZE, c=[[[1.0]]] * 4),
    "text in place of numbers": columns("'a' of 'c' is not a number", SIZE, c=["a"] * 4),
    "timestamps": columns(
        Read(says=r"left out 'when' \(timestamp"), when=np.array([1, 2, 3, 4], "datetime64[ms]")
    ),
    "an index of pandas": columns(
        Read(x=[[0], [1]], says="'__index_level_0__' "), __index_level_0__=[0, 1, 2, 3]
    ),
    "bytes": columns(Read(says=r"left out 'b' \(binary\)"), b=[b"1"] * 4),
    "booleans": columns(Read(x=[[0, 1], [1, 0]]), b=[True, False, True, False]),
    # sentences
    "a mark in a text": words("\ufeff0 a\n1 b\n", Read(y=[0, 1]), encoding="utf-8"),
    "a mark amid a text": words("0 a\n\ufeff1 b\n", r"a.txt:2: holds a byte-order mark amid"),
    "a label without words": words("0 a\n1 \n1 b\n", Read(says="left out 1 lines without words")),
    "a label alone": words("0 a\n1\n", r"a.txt:2: '1' is not a `label sentence` line"),
    "labels of text 1 and 1.0": words("0 a\n1 b\n1.0 d\n", Read(y=[0, 1, 1])),
    "a text's NaN": words("x a\nNaN b\n", r"a.txt:2: 'a' is 'NaN': a missing value, or not"),
    "a text of an old Mac": words("0 a\r1 b\r", r"a.txt:1: holds a carriage return"),
    "a text in Latin-1": words(
        "0 caf\u00e9\n1 b\n".encode("latin-1"), Read(says="a.txt read as Latin-1")
    ),
    "a test set of another kind": words(
        {"a.train": "0 a\n1 b\n", "a.test": "2 d\n1 e\n3 f\n"},
        Read(says="of a, no training example has the class 2, 3 of its test set"),
    ),
    "a copy of a text": words({"a.txt": "0 a\n1 b\n", "b.txt": "0 a\n1 b\n"}, "holds the same as"),
    # images
    "bytes joined with floats": images(
        r"f: float32 of shape \(3, 3\), and .*i has uint8", f=idx(FLOATS, 13), m=LABELS
    ),
    "images twice": (
        {"i": idx(BYTES, 8), "l": LABELS},
        plugin("idx", path=["i", "l", "i", "l"]),
        "i is listed twice",
    ),
    "images packed and not": (
        {"i": idx(BYTES, 8), "l": LABELS, "i.gz": gzip.compress(idx(BYTES, 8)), "m": LABELS},
        plugin("idx", path=["i", "l", "i.gz", "m"]),
        "i.gz holds the same examples as i;",
    ),
    "a pixel that is NaN": images("i: item 2 has a number that is not finite", idx(NAN, 13)),
    "a pixel beyond float32": images("i: item 1 has a number that is not finite", idx(HUGE, 14)),
    "255 dimensions": images(
        "i: its header has 255 dimensions", bytes([0, 0, 8, 255]) + b"\0\0\0\1" * 255 + b"x"
    ),
    "huge dimensions": images(
        "i: its header has 4 dimensions|has .* images",
        bytes([0, 0, 8, 4]) + struct.pack(">4I", 2**31, 2**31, 4, 0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_read_as_it_is_meant_or_refused(case, tmp_path, monkeypatch, caplog):
    files, source, expected = CASES[case]
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if "link" in source["options"]["path"]:
        (tmp_path / "link").symlink_to("a.csv")
    (tmp_path / ".x").mkdir()
    (tmp_path / "x").symlink_to(".x")
    partition = "natural" if "client_column" in source["options"] else "iid"
    config = DataConfig.model_validate({"source": source, "partition": partition})
    caplog.set_level(logging.INFO, "fedjoint.data")
    monkeypatch.setattr("fedjoint.data.reading._said", set())
    if not isinstance(expected, Read):
        with pytest.raises(UserError, match=expected) as refused:
            make_source(config.source).load(config)
        assert "\n" not in str(refused.value)
        return
    dataset = make_source(config.source).load(config)
    (record,) = caplog.records
    line = record.getMessage()
    assert "\n" not in line and re.search(expected.says, line), line
    if expected.x is not None:
        np.testing.assert_allclose(dataset.examples.x[: len(expected.x)], expected.x, rtol=1e-6)
    if expected.y is not None:
        (y,) = dataset.examples.y.values()
        assert y[: len(expected.y)].tolist() == expected.y


def test_a_header_of_many_names_is_checked_at_once(tmp_path):
    names = [f"f{i}" for i in range(100_000)]
    text = ",".join([*names, names[-1], "c"]) + "\n" + "1," * (len(names) + 1) + "0\n"
    (tmp_path / "a.csv").write_text(text)
    config = DataConfig(source=plugin("csv", path=str(tmp_path / "a.csv"), **CLASS))
    with pytest.raises(UserError, match=r"two columns have the same name, 'f99999'"):
        make_source(config.source).load(config)


def test_what_was_read_is_said_once_and_warns_of_what_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "fedjoint.data")
    for name, column in (("whole", "1234"), ("part", "abcd")):
        (tmp_path / f"{name}.csv").write_text(table(*column))
        for _ in range(2):
            source = plugin("csv", path=str(tmp_path / f"{name}.csv"), **CLASS)
            make_source(DataConfig(source=source).source).load(DataConfig())
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
