import gzip
import struct

import numpy as np
import pytest

from fedjoint.config.data import DataConfig
from fedjoint.data.dataset import TEST, TRAIN
from fedjoint.data.idx import read_idx
from fedjoint.data.sources.idx import Idx
from fedjoint.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 5, 4), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


def encoded(array, code=8, magic=b"\0\0"):
    head = magic + bytes([code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def load(path, **settings):
    return Idx(path).load(DataConfig(**settings))


def write(folder, images=None, labels=None):
    paths = [folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"]
    paths[0].write_bytes(encoded(IMAGES) if images is None else images)
    paths[1].write_bytes(encoded(LABELS) if labels is None else labels)
    return [str(path) for path in paths]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("folder", [True, False])
def test_round_trip(tmp_path, compress, folder):
    paths = write(tmp_path, compress(encoded(IMAGES)), compress(encoded(LABELS)))
    dataset = load(str(tmp_path) if folder else paths)
    np.testing.assert_allclose(dataset.examples.x.numpy()[:, 0], IMAGES / 255.0, rtol=1e-6)
    assert dataset.examples.y["label"].tolist() == LABELS.tolist()
    assert dataset.tasks[0].outputs == 3


@pytest.mark.parametrize(("code", "kind"), [(9, "i1"), (11, "i2"), (12, "i4"), (13, "f4")])
def test_types(tmp_path, code, kind):
    array = (IMAGES.astype(int) - 128).astype(kind)
    file = tmp_path / "x"
    file.write_bytes(encoded(array, code))
    np.testing.assert_array_equal(read_idx(file), array)


def test_pairs_are_joined(tmp_path):
    paths = write(tmp_path)
    (tmp_path / "more").mkdir()
    dataset = load(paths + write(tmp_path / "more", encoded(255 - IMAGES)))
    assert dataset.examples.y["label"].tolist() == [*LABELS, *LABELS]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (encoded(IMAGES, magic=b"PK"), None, r"images.*not an IDX file \(magic 504b0803\)"),
        (encoded(IMAGES, code=7), None, "images.*not an IDX file"),
        (b"\0", None, "images.*not an IDX file"),
        (encoded(IMAGES)[:9], None, "images.*truncated in the header"),
        (encoded(IMAGES)[:-1], None, r"images.*truncated: 255 bytes, its header says 256"),
        (encoded(IMAGES) + b"!", None, r"images.*too long: 257 bytes, its header says 256"),
        # No time of day: the test's name has these bytes, and all processes must agree on it.
        (gzip.compress(encoded(IMAGES), mtime=0)[:-9], None, "images.*damaged gzip"),
        (None, encoded(LABELS[:-1]), r"has 12 images, but .*labels-idx1-ubyte has 11 labels"),
        (None, encoded(IMAGES), "check their order"),
        (encoded(IMAGES[:0]), encoded(LABELS[:0]), "no images"),
    ],
)
def test_malformed_files(tmp_path, images, labels, message):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, images, labels))


def test_class_count_mismatch_names_the_item(tmp_path):
    with pytest.raises(UserError, match=r"labels-idx1-ubyte: item 2: label '2'.*= 2 allows 0 to 1"):
        load(write(tmp_path), outputs={"label": 2})


def test_unpaired_files(tmp_path):
    paths = write(tmp_path)
    with pytest.raises(UserError, match="lists 1 files; list images and labels"):
        load(paths[:1])
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="its labels, train-labels-idx1-ubyte, are not beside it"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="no file with 'images' in its name"):
        (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "data")
        load(str(tmp_path))


def test_the_files_of_a_test_set_stay_it(tmp_path):
    write(tmp_path)
    for kind, array in (("images-idx3", 255 - IMAGES[:5]), ("labels-idx1", LABELS[:5])):
        (tmp_path / f"t10k-{kind}-ubyte").write_bytes(encoded(array))
    dataset = load(str(tmp_path))
    assert dataset.split.tolist() == [TEST] * 5 + [TRAIN] * 12
    np.testing.assert_allclose(
        dataset.examples.x[dataset.rows(TEST), 0], (255 - IMAGES[:5]) / 255, rtol=1e-6
    )
    files = [
        [str(tmp_path / f"{s}-{k}-ubyte") for k in ("images-idx3", "labels-idx1")]
        for s in ("train", "t10k")
    ]
    named = Idx(files[0], test_path=files[1]).load(DataConfig())
    assert named.split.tolist() == [TRAIN] * 12 + [TEST] * 5
    with pytest.raises(UserError, match=r"holds a test set, and .*test_path names another"):
        Idx(str(tmp_path), test_path=files[1]).load(DataConfig())
