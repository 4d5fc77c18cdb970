import io
import json
import struct
import sys
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fedjoint.config.data import DataConfig
from fedjoint.data.dataset import TEST, TRAIN, VALID
from fedjoint.data.sources.parquet import Parquet
from fedjoint.errors import UserError

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
GREYS = COLOURS[..., 0]
LABELS = [0, 1, 2, 0, 1, 2]


def png(array, kind="PNG", **settings):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **settings)
    return {"bytes": file.getvalue(), "path": None}


def resized(data, side):
    """Return a PNG whose header claims another size."""
    head = b"IHDR" + struct.pack(">2I", side, side) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def rows(images, labels=LABELS, names=None, **more):
    table = pa.table({"img": images, "label": labels[: len(images)], **more})
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    return table


def write(folder, **tables):
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name.replace('_', '-')}.parquet")
    return str(folder)


def load(path, targets=None, partition="iid", outputs=None, **options):
    source = Parquet(path, targets or {"label": "multiclass"}, **options)
    return source.load(DataConfig(partition=partition, outputs=outputs or {}))


def test_a_folder_as_the_hub_has_it(tmp_path):
    images = [png(a) for a in COLOURS]
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("cards are no data")
    write(
        tmp_path / "data",
        train_00000_of_00002=rows(images[:2]),
        train_00001_of_00002=rows(images[2:4], LABELS[2:]),
        validation_00000_of_00001=rows(images[4:5], LABELS[4:]),
        test_00000_of_00001=rows(images[5:], LABELS[5:]),
    )
    dataset = load(str(tmp_path))
    # Files are read in the order of their names.
    order = [5, 0, 1, 2, 3, 4]
    expected = COLOURS[order].transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(dataset.examples.x, expected, rtol=1e-6)
    assert dataset.examples.y["label"].tolist() == [LABELS[i] for i in order]
    assert dataset.split.tolist() == [TEST, *[TRAIN] * 4, VALID]


def test_grey_images_have_one_channel_unless_beside_colour(tmp_path):
    path = write(tmp_path, a=rows([png(a) for a in GREYS]))
    np.testing.assert_allclose(load(path).examples.x[:, 0], GREYS / 255, rtol=1e-6)
    path = write(tmp_path, a=rows([png(GREYS[0]), png(COLOURS[1])]))
    x = load(path).examples.x
    assert x.shape == (2, 3, 5, 4)
    np.testing.assert_allclose(x[0], np.broadcast_to(GREYS[0], (3, 5, 4)) / 255, rtol=1e-6)


def test_texts_numbers_and_several_targets(tmp_path):
    table = pa.table(
        {
            "text": ["a b", "b", "c", "a"],
            "size": [1.5, None, 2.0, 3.0],
            "kind": ["x", "y", "x", "x"],
            "who": ["u", "v", "u", "v"],
            "rest": [[1.0, 2.0]] * 4,
        }
    )
    path = write(tmp_path, a=table)
    targets = {"size": "regression", "kind": "multiclass"}
    more = {"client_column": "who", "partition": "natural"}
    dataset = load(path, targets, input="text", **more)
    assert dataset.examples.x.dtype == torch.int64 and dataset.owner.tolist() == ["u", "v"] * 2
    np.testing.assert_array_equal(dataset.examples.y["size"][:, 0], [1.5, np.nan, 2, 3])
    assert load(path, targets, input="rest").examples.x.tolist() == [[1, 2]] * 4
    with pytest.raises(UserError, match="beside the targets are text, who, rest; say which"):
        load(path, targets)


def test_the_hub_s_own_names_of_classes(tmp_path):
    path = write(tmp_path, a=rows([png(GREYS[0])], names=["cat", "dog", "owl"]))
    source = Parquet(path, {"label": "multiclass"})
    (task,) = source.load(DataConfig()).tasks
    assert task.outputs == 3 and source.class_names(task) == ["cat", "dog", "owl"]


OTHER = np.zeros((3, 3, 3), np.uint8)
BROKEN = {"bytes": png(COLOURS[0])["bytes"][:60], "path": None}
VAST = {"bytes": resized(png(COLOURS[0])["bytes"], 12_000), "path": None}
CLEAR = np.zeros((5, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ({"a": rows([png(COLOURS[0]), png(OTHER)])}, {}, "row 1 is an image of 3 x 3, the first"),
        ({"a": rows([VAST] * 6)}, {}, r"6 images of 12000 x 12000: about 13 GB, and .* has 10"),
        ({"a": rows([png(COLOURS[0]), BROKEN])}, {}, "row 1: not an image, or a broken one"),
        ({"a": rows([png(COLOURS[0]), None])}, {}, "row 1 has no image"),
        ({"a": rows([png(CLEAR), png(OTHER)])}, {}, "row 0 is an image of Pillow's mode RGBA"),
        ({"a": rows([png(GREYS[0].astype(np.uint16)), png(OTHER)])}, {}, "Pillow's mode I;16"),
        ({"a": rows([])}, {}, "the table has no rows"),
        ({}, {}, "the folder has no .parquet files; fix data.source.options.path"),
        ({"a": rows(["a b", " "])}, {}, "of row 1 has no words"),
        ({"a": rows([[1.0], [1.0, 2.0]])}, {}, r"of row 1 is no array of numbers of shape \(1,\)"),
        ({"a": rows([png(GREYS[0])])}, {"input": "image"}, "unknown column 'image'"),
        ({"a": rows([png(GREYS[0])])}, {"input": "label"}, "'label' is input and target"),
        (
            {"a": rows([png(GREYS[0])]), "b": rows(["text"])},
            {},
            r"b.parquet: its columns are not those of .*a.parquet \(img\)",
        ),
        (
            {"a": rows([png(GREYS[0])], names=["cat"], labels=[1])},
            {},
            r"row 0: label '1' of 'label' is class 1",
        ),
        (
            {"train": rows([png(GREYS[0])]), "test": rows([png(GREYS[0])])},
            {},
            "holds the same as",
        ),
        (
            {n: rows([png(GREYS[i])]) for i, n in enumerate(("train", "test", "unsupervised"))},
            {},
            "unsupervised.parquet: other files are for training or test by their names",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_what_is_refused(tmp_path, tables, options, message, monkeypatch):
    monkeypatch.setattr("fedjoint._util.memory.allowed_bytes", lambda: 10**10)
    write(tmp_path, **tables)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path), **options)


def test_two_data_sets_in_one_folder(tmp_path):
    for name in ("coarse", "fine"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, train=rows([png(GREYS[0])]))
    with pytest.raises(UserError, match="of one data set, or of several"):
        load(str(tmp_path))


def test_without_pillow_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path, a=rows([png(a) for a in GREYS]))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"pip install 'fedjoint\[images\]'"):
        load(path)


def test_real_images(shared_data):
    path = str(shared_data / "vision" / "cifar10" / "test.parquet")
    dataset = load(path)
    assert dataset.examples.x.shape == (10_000, 3, 32, 32) and dataset.tasks[0].outputs == 10
    # The test set has 1,000 images of each class; the mean of its pixels is known to be 0.4766
    # (Krizhevsky 2009: red 0.494, green 0.485, blue 0.450).
    assert torch.bincount(dataset.examples.y["label"]).tolist() == [1000] * 10
    means = dataset.examples.x.mean((0, 2, 3))
    torch.testing.assert_close(means, torch.tensor([0.494, 0.485, 0.450]), atol=2e-3, rtol=0)
