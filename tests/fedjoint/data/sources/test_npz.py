"""Arrays of NumPy: what is read of them, and what is refused in one line."""

import numpy as np
import pytest
import torch

import fedjoint
from fedjoint.config.data import DataConfig
from fedjoint.data.sources.npz import Npz
from fedjoint.errors import UserError

N, SIDE = 40, 4


def arrays(**more):
    random = np.random.default_rng(0)
    x = random.normal(size=(N, 1, SIDE, SIDE)).astype(np.float32)
    boxes = np.full((N, 2, 5), -1.0)
    boxes[:, 0] = [1, 0, 0, 0.5, 0.5]
    found = {
        "x": x,
        "kind": (x.mean((1, 2, 3)) > 0).astype(np.int32),
        "region": (x[:, 0] > 0).astype(np.uint8) + (x[:, 0] > 1),
        "depth": np.where(x > 2, np.nan, 3 * x + 1),
        "box": boxes,
        "word": random.integers(0, 9, (N, 7)),
        "whose": np.array(["a", "b"] * (N // 2)),
    }
    return {**found, **more}


KINDS = {
    "kind": "multiclass",
    "region": "segmentation",
    "depth": "dense_regression",
    "box": "detection",
    "word": "tokens",
}


def save(folder, name="all.npz", **more):
    np.savez(folder / name, **arrays(**more))
    return str(folder / name)


def test_labels_of_every_kind_are_what_the_file_has(tmp_path):
    dataset = Npz(save(tmp_path), KINDS, client_column="whose").load(DataConfig())
    forms = {task.name: (task.kind, task.outputs, task.size) for task in dataset.tasks}
    assert forms == {
        "kind": ("multiclass", 2, ()),
        "region": ("segmentation", 3, (SIDE, SIDE)),
        "depth": ("dense_regression", 1, (SIDE, SIDE)),
        "box": ("detection", 2, (2,)),
        "word": ("tokens", 9, (7,)),
    }
    given = arrays()
    assert np.array_equal(dataset.examples.x.numpy(), given["x"])
    for task in dataset.tasks:
        y = dataset.examples.y[task.name]
        assert y.dtype == (torch.int64 if task.form.whole else torch.float32)
        np.testing.assert_allclose(y.numpy(), given[task.name], rtol=1e-6)
    assert dataset.owner.tolist() == given["whose"].tolist() and dataset.split is None


def test_files_are_joined_and_a_test_set_stays_one(tmp_path):
    files = [
        save(tmp_path, f"{part}.npz", x=np.full((N, 3), float(number)))
        for number, part in enumerate(("train.1", "train.2", "test"))
    ]
    dataset = Npz(files, {"kind": "multiclass"}).load(DataConfig())
    assert len(dataset.examples) == 3 * N
    assert set(dataset.examples.x[dataset.rows(2)].flatten().tolist()) == {2.0}


def test_bytes_are_pixels_and_whole_numbers_are_ids(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (N, 5, 5)).astype(np.uint8)
    x = Npz(save(tmp_path, x=images), {"kind": "multiclass"}).load(DataConfig()).examples.x
    assert x.shape == (N, 1, 5, 5)
    np.testing.assert_allclose(x[:, 0].numpy(), images / 255, rtol=1e-6)
    ids = np.arange(N * 2).reshape(N, 2)
    source = Npz(save(tmp_path, x=ids.astype(np.int32)), {"kind": "multiclass"})
    x = source.load(DataConfig()).examples.x
    assert x.dtype == torch.int64 and np.array_equal(x.numpy(), ids)


def test_a_model_s_card_has_the_type_of_the_numbers(tmp_path):
    image = np.zeros((N, 1, 5, 5))
    for types, expected in (
        (["uint8"], "uint8"),
        (["float32"], "float32"),
        (["uint8", "uint16"], "uint16"),
    ):
        files = [save(tmp_path, f"{t}.npz", x=image.astype(t)) for t in types]
        source = Npz(files, {"kind": "multiclass"})
        assert source.inputs(torch.zeros(1, 1, 5, 5)).stored == expected


def test_a_number_may_stand_for_a_missing_label(tmp_path):
    region = arrays()["region"]
    region[:, 0] = 255
    targets = {"region": "segmentation"}
    dataset = Npz(save(tmp_path, region=region), targets, ignore=255).load(DataConfig())
    assert dataset.tasks[0].outputs == 3
    assert (dataset.examples.y["region"][:, 0] == -1).all()
    assert np.array_equal(dataset.examples.y["region"][:, 1:].numpy(), region[:, 1:])


def test_a_run_from_a_file(tmp_path):
    result = fedjoint.simulate(
        {
            "rounds": 2,
            "data": {
                "clients": 2,
                "source": {"name": "npz", "options": {"path": save(tmp_path), "targets": KINDS}},
                "task_mix": [["kind", "region"], ["depth", "box"]],
            },
            "model": {"backbone": {"name": "cnn", "options": {"hidden": [4], "flatten": False}}},
            "metrics": {"region": ["accuracy", "miou"]},
            "losses": {"depth": "absolute"},
            "engine": "inline",
            "output": {"dir": str(tmp_path / "runs")},
        }
    )
    test = result.metrics["test"]
    assert set(test) == {"kind", "region", "region/mIoU", "depth", "box"}
    assert all(value is not None for value in test.values())


REFUSED = {
    "no array": (
        {},
        {"kinds": "multiclass"},
        "unknown array in .*all.npz 'kinds'.*did you mean 'kind'",
    ),
    "no inputs": ({}, {"kind": "multiclass", "input": "y"}, "unknown array in .* 'y'"),
    "no kind": ({}, {"kind": "multiclas"}, "unknown kind of task 'kind' 'multiclas'"),
    "too few": ({"kind": np.zeros(N - 1, int)}, {"kind": "multiclass"}, "'kind' has 39 rows, and"),
    "one number": ({"kind": np.zeros((), int)}, {"kind": "multiclass"}, "'kind' has no rows"),
    "flat maps": (
        {},
        {"kind": "segmentation"},
        r"shape \[40\]: labels of segmentation are \[n, height",
    ),
    "real classes": (
        {},
        {"depth": "segmentation"},
        "float32: labels of segmentation are whole numb",
    ),
    "text": ({"kind": np.array(["a"] * N)}, {"kind": "multiclass"}, "not arrays of numbers"),
    "dates": ({"x": np.zeros(N, "M8[s]")}, {"kind": "multiclass"}, "not arrays of numbers"),
    "records": (
        {"x": np.zeros((N, 4), [("a", "f4")])},
        {"kind": "multiclass"},
        "not arrays of numbers",
    ),
    "no numbers": ({"x": np.zeros((N, 0, 4))}, {"kind": "multiclass"}, "the file has no examples"),
    "boxes of four": ({"box": np.zeros((N, 2, 4))}, {"box": "detection"}, r"\[n, boxes, 5\]"),
    "NaN inputs": ({"x": np.full((N, 3), np.nan)}, {"kind": "multiclass"}, "all.npz"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_arrays_that_do_not_fit_are_refused(what, tmp_path):
    more, targets, words = REFUSED[what]
    targets = dict(targets)
    options = {"input": targets.pop("input")} if "input" in targets else {}
    path = save(tmp_path, **more)
    with pytest.raises(UserError, match=words) as error:
        Npz(path, targets, **options).load(DataConfig())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "all.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"all\.npz: not arrays of numbers in NumPy's"):
        Npz(str(tmp_path / "all.npz"), KINDS).load(DataConfig())


def test_objects_are_not_unpickled(tmp_path):
    path = save(tmp_path, kind=np.array([{}] * N, object))
    with pytest.raises(UserError, match="not arrays of numbers"):
        Npz(path, {"kind": "multiclass"}).load(DataConfig())
