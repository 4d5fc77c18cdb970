"""Files of inputs: every kind holds the same, and one line says what is wrong with one."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fedjoint.data.text import encode
from fedjoint.errors import UserError
from fedjoint.exports.inputs import read_inputs
from fedjoint.model.inputs import Inputs, Words

IDS = Inputs(shape=(4,), dtype="int64", vocabulary=9)
NUMBERS = Inputs(shape=(3,), dtype="float32", columns=["x0", "x1", "x2"])
MASKED = {
    "ids": Inputs(shape=(4,), dtype="int64", pad=0, vocabulary=9),
    "mask": Inputs(shape=(4,), dtype="bool", pad=0),
    "age": Inputs(shape=(1,), dtype="float32"),
}
PAIRS = Inputs(shape=(2, 3), dtype="float32")
IMAGE = Inputs(shape=(3, 2, 2), dtype="float32", pixels=True, name="img")
BYTES = Inputs(shape=(2,), dtype="uint8")


def put(folder, kind, columns):
    """Write columns, or the only one, in a file of that kind; return it."""
    path = folder / f"x.{kind}"
    if isinstance(columns, bytes):
        path.write_bytes(columns)
    elif kind == "parquet":
        pq.write_table(
            pa.table(
                {
                    n: np.asarray(c).tolist() if isinstance(c, np.ndarray) else c
                    for n, c in columns.items()
                }
            ),
            path,
        )
    elif kind == "npz":
        np.savez(path, **{name: np.asarray(column) for name, column in columns.items()})
    else:
        np.save(path, np.asarray(columns))
    return path


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_a_dict_is_arrays_or_columns_shorter_ones_too(kind, tmp_path):
    ids = [[1, 2, 3], [4, 5, 0]]
    columns = {"age": [[0.5], [1.5]], "mask": [[1, 1, 1], [1, 1, 0]], "ids": ids}
    x = read_inputs(put(tmp_path, kind, columns), MASKED)
    assert x["ids"].tolist() == [[1, 2, 3, 0], [4, 5, 0, 0]]
    assert x["mask"].tolist() == [[True, True, True, False], [True, True, False, False]]
    assert x["age"].tolist() == [[0.5], [1.5]]


def test_lists_of_a_column_may_be_of_unequal_length(tmp_path):
    columns = {"ids": [[1], [2, 3, 4]], "mask": [[True], [True] * 3], "age": [1.0, 2.0]}
    x = read_inputs(put(tmp_path, "parquet", columns), MASKED)
    assert x["ids"].tolist() == [[1, 0, 0, 0], [2, 3, 4, 0]]
    assert x["mask"].sum(1).tolist() == [1, 3] and x["age"].tolist() == [[1], [2]]


def test_one_tensor_is_the_only_array_or_the_one_of_its_name(tmp_path):
    for kind in ("npz", "parquet"):
        x = np.arange(12.0).reshape(2, 2, 3)
        assert read_inputs(put(tmp_path, kind, {"any": x}), PAIRS).tolist() == x.tolist()
        named = PAIRS.model_copy(update={"name": "any"})
        assert (
            read_inputs(put(tmp_path, kind, {"any": x, "y": [1, 2]}), named).tolist() == x.tolist()
        )
        with pytest.raises(UserError, match="it has 'a', 'b'; the model reads"):
            read_inputs(put(tmp_path, kind, {"a": x, "b": [1, 2]}), PAIRS)


def test_a_table_of_numbers_is_one_in_parquet_too(tmp_path):
    path = put(tmp_path, "parquet", {"x2": [3.0], "x0": [1.0], "x1": [2.0], "other": ["a"]})
    assert read_inputs(path, NUMBERS).tolist() == [[1, 2, 3]]
    path = put(tmp_path, "parquet", {"all": [[1.0, 2.0, 3.0]]})
    assert read_inputs(path, NUMBERS).tolist() == [[1, 2, 3]]


def test_images_of_a_column_have_the_model_s_channels(tmp_path):
    grey = np.array([[0, 255], [51, 0]], np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    path = put(tmp_path, "parquet", {"img": [{"bytes": file.getvalue()}], "label": [1]})
    expected = torch.tensor([[0, 1], [0.2, 0]]).expand(1, 3, 2, 2)
    torch.testing.assert_close(read_inputs(path, IMAGE), expected)


def test_texts_of_a_column_are_words(tmp_path):
    words = Inputs(shape=(3,), dtype="int64", name="text", words=Words(max_length=3, vocabulary=50))
    (tmp_path / "x.txt").write_text("good film\nbad\n")
    path = put(tmp_path, "parquet", {"text": ["good film", "bad"], "who": [1, 2]})
    assert torch.equal(read_inputs(path, words), read_inputs(tmp_path / "x.txt", words))


def test_lists_of_words_and_items_of_texts_are_read_as_the_run_did(tmp_path):
    words = Inputs(shape=(3,), dtype="int64", words=Words(max_length=3, vocabulary=50))
    texts = ["good film", "bad"]
    expected = encode(texts, 3, 50)
    path = put(tmp_path, "parquet", {"words": [["Good", "film"], ["bad"]]})
    assert torch.equal(read_inputs(path, words), expected)
    pair = words.model_copy(update={"shape": (2, 3), "items": True})
    path = put(tmp_path, "parquet", {"two": [texts]})
    assert torch.equal(read_inputs(path, pair), expected[None])
    with pytest.raises(UserError, match=r"row 0 .* is \['bad'\]; give a list of 2 texts"):
        read_inputs(put(tmp_path, "parquet", {"two": [["bad"]]}), pair)


def test_lists_of_ids_are_cut_as_the_run_s_own_were(tmp_path):
    own = IDS.model_copy(update={"name": "ids", "pad": 0})
    path = put(tmp_path, "parquet", {"ids": [[1, 2, 3, 4, 5, 6], [7]]})
    assert read_inputs(path, own).tolist() == [[1, 2, 3, 4], [7, 0, 0, 0]]
    with pytest.raises(UserError, match=r"of shape \(2,\); the model reads \[n, \*\(4,\)\]"):
        read_inputs(put(tmp_path, "parquet", {"ids": [1, 2]}), own)


def test_numbers_of_another_type_are_what_the_model_takes(tmp_path):
    x = read_inputs(put(tmp_path, "npy", [[1, 255]]), BYTES)
    assert x.dtype == torch.uint8 and x.tolist() == [[1, 255]]


PIXELS = Inputs(shape=(1, 2, 2), dtype="float32", pixels=True, stored="uint8")


def idx(array, code):
    head = bytes([0, 0, code, array.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


IDX_TYPES = {"u1": 8, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
TYPES = [(kind, t) for kind in ("npy", "npz", "parquet") for t in ("u1", "i2", "i8", "f4", "f8")]


@pytest.mark.parametrize(("kind", "dtype"), TYPES + [("idx", t) for t in IDX_TYPES])
def test_pixels_are_from_0_to_1_in_every_type_and_file(kind, dtype, tmp_path):
    levels = np.array([[[0, 255], [51, 102]], [[1, 2], [3, 4]]])
    array = (levels / 255 if dtype[0] == "f" else levels).astype(dtype)
    if kind == "idx":
        path = put(tmp_path, "idx", idx(array.astype(f">{dtype}"), IDX_TYPES[dtype]))
    else:
        path = put(tmp_path, kind, array if kind == "npy" else {"x": array})
    expected = torch.from_numpy(levels / 255).float()[:, None]
    torch.testing.assert_close(read_inputs(path, PIXELS), expected)


@pytest.mark.parametrize(
    ("stored", "divided"),
    [(None, True), ("float64", True), ("int64", False), ("int16", False)],
)
def test_bytes_for_a_model_of_other_numbers_are_as_its_run_had_them(stored, divided, tmp_path):
    array = np.full((1, 1, 2, 2), 51, np.uint8)
    own = PIXELS.model_copy(update={"stored": stored})
    found = read_inputs(put(tmp_path, "npy", array), own)
    assert found.flatten().tolist() == pytest.approx([0.2 if divided else 51.0] * 4)
    real = read_inputs(put(tmp_path, "npy", array.astype(np.float32)), own)
    assert real.flatten().tolist() == [51.0] * 4


OK = {"ids": [[1, 2]], "mask": [[1, 1]], "age": [[1.0]]}
WRONG = {
    "another width": (
        "npy",
        np.ones((2, 4), np.float32),
        NUMBERS,
        r"shape (2, 4); the model reads [n, *(3,)]",
    ),
    "another dimension": (
        "npy",
        np.ones((2, 3)),
        PAIRS,
        "shape (2, 3); the model reads [n, *(2, 3)]",
    ),
    "real ids": ("npy", np.ones((2, 4)), IDS, "whole numbers from 0 to 8, not float64"),
    "an id too large": (
        "npy",
        [[1, 2, 3, 4], [1, 9, 2, 3]],
        IDS,
        "row 1 (from 0) has 9; the model reads whole numbers from 0 to 8",
    ),
    "an id below 0": ("npy", [[1, 2, 3, -1]], IDS, "has -1; the model reads whole numbers from 0"),
    "a byte too large": (
        "npy",
        [[1, 256]],
        BYTES,
        "has 256; the model reads whole numbers from 0 to 255",
    ),
    "no rows": ("npy", np.ones((0, 3)), NUMBERS, "no rows; the model reads [n, *(3,)]"),
    "one number": ("npy", np.float32(1), NUMBERS, "no rows"),
    "an empty file": ("npy", b"", NUMBERS, "not an array of numbers in NumPy's format"),
    "an empty archive": ("npz", b"", MASKED, "not arrays of numbers in NumPy's .npz format"),
    "an empty Parquet file": ("parquet", b"", MASKED, "not a Parquet file, or a broken one"),
    "no columns of rows": (
        "parquet",
        {"ids": [], "mask": [], "age": []},
        MASKED,
        "the table has no rows",
    ),
    "a mask of another length": (
        "npz",
        {**OK, "mask": [[1, 1, 1]]},
        MASKED,
        "'mask' has the length 3, and 'ids' 2: give",
    ),
    "a list of another length": (
        "parquet",
        {**OK, "mask": [[1]]},
        MASKED,
        "row 0 (from 0): 'mask' has the length 1, and 'ids' 2",
    ),
    "a mask of more rows": (
        "npz",
        {**OK, "mask": [[1, 1]] * 2},
        MASKED,
        "differ in the number of examples",
    ),
    "too long": (
        "npz",
        {**OK, "ids": [[1] * 5]},
        MASKED,
        "shape (1, 5); the model reads [n, *(4,)], or shorter ones",
    ),
    "a mask of twos": (
        "npz",
        {**OK, "mask": [[1, 2]]},
        MASKED,
        "a mask is of true and false, or of 0 and 1",
    ),
    "no mask": (
        "parquet",
        {"ids": [[1]], "age": [[1.0]]},
        MASKED,
        "no 'mask'; the model reads .npz (numpy.savez) of arrays",
    ),
    "an empty cell": ("parquet", {**OK, "ids": [None]}, MASKED, "row 0 (from 0) is empty"),
    "text for ids": ("parquet", {**OK, "ids": ["a b"]}, MASKED, "the model reads no text"),
    "ragged pairs": (
        "parquet",
        {"x": [[[1.0, 2.0], [1.0]]]},
        PAIRS,
        "row 0 is no array of numbers",
    ),
    "a hole in a list": (
        "parquet",
        {**OK, "ids": [[1, None]]},
        MASKED,
        "row 0 is no array of numbers; the model reads",
    ),
    "a real pixel of 255": (
        "npy",
        np.array([[[0, 1], [0, 1]], [[0, 0], [0.5, 255]]], np.float32),
        PIXELS,
        "row 1 (from 0) has 255; the model reads pixels, whole numbers from 0 to 255 or real ones",
    ),
    "a normalised pixel": (
        "npz",
        {"x": np.full((1, 2, 2), -0.5)},
        PIXELS,
        "row 0 (from 0) has -0.5;",
    ),
    "a pixel of twelve bits": ("npy", np.full((1, 2, 2), 4095), PIXELS, "row 0 (from 0) has 4095;"),
    "a pixel below 0": ("npy", np.full((1, 2, 2), -1), PIXELS, "row 0 (from 0) has -1;"),
    "a list of real pixels": (
        "parquet",
        {"x": [[[0.0, 1.0], [2.0, 0.0]]]},
        PIXELS,
        "row 0 (from 0) has 2;",
    ),
    "not finite": (
        "npy",
        [[1, 2, np.nan]],
        NUMBERS,
        "row 0 (from 0) has a number that is not finite",
    ),
    "not finite in float32": ("npy", [[1, 2, 1e300]], NUMBERS, "a number that is not finite"),
}


@pytest.mark.parametrize("what", WRONG)
def test_one_clear_line_for_a_file_that_does_not_fit(what, tmp_path):
    kind, content, reads, words = WRONG[what]
    path = put(tmp_path, kind, content)
    with pytest.raises(UserError) as caught:
        read_inputs(path, reads)
    line = str(caught.value)
    assert words in line and f"x.{kind}" in line and "\n" not in line
