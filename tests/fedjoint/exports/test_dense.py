"""Exports of tasks of places, words and boxes: the mean of heads, and predictions in files."""

import numpy as np
import pytest
import torch
from support.zoo import dense

import fedjoint
from fedjoint.cli import load_command
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.exports.model import Target
from fedjoint.exports.predict import columns, predict, predict_arrays, rows
from fedjoint.model.boxes import decode

SIDE = 6


def settings(folder, **more):
    return {
        "rounds": 2,
        "local": {"optimiser": {"lr": 0.05}},
        "engine": "inline",
        "output": {"dir": str(folder / "runs")},
        **more,
    }


def labelled(y):
    """Return how many examples have a label at some place."""
    there = y >= 0 if not y.is_floating_point() else ~y.isnan()
    return int(there.reshape(len(y), -1).any(1).sum())


@pytest.mark.parametrize(
    ("case", "task"),
    [
        ("segmentation", "regions"),
        ("maps_and_classes", "depth"),
        ("detection", "squares"),
        ("tokens", "part"),
        ("preference", "better"),
    ],
)
def test_the_mean_of_heads_has_the_mean_of_outputs(case, task, tmp_path):
    problem = getattr(dense, case)(fedjoint.Config())
    run = fedjoint.simulate(settings(tmp_path), problem)
    x = problem.data.client(0).test.x
    weights, outputs = [], []
    for client in range(len(problem.data.sizes)):
        weights.append(labelled(problem.data.client(client).train.y[task]))
        outputs.append(export(run.path, task, client=client, problem=problem).model(x))
    mean = sum(w * out for w, out in zip(weights, outputs, strict=True)) / sum(weights)
    found = export(run.path, task, problem=problem).model(x)
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-4)


def saved(folder):
    """Save images with labels of every kind that goes with a map; return the source's options."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 1, SIDE, SIDE)).astype(np.float32)
    boxes = np.full((60, 1, 5), -1.0)
    boxes[::2] = [1, 0, 0, 0.5, 0.5]
    labels = {"region": (x[:, 0] > 0).astype(int), "depth": 3 * x + 1, "box": boxes}
    np.savez(folder / "all.npz", x=x, **labels)
    np.save(folder / "new.npy", x[:7])
    kinds = {"region": "segmentation", "depth": "dense_regression", "box": "detection"}
    return {"path": str(folder / "all.npz"), "targets": kinds}


@pytest.fixture
def run(tmp_path):
    data = {"clients": 2, "source": {"name": "npz", "options": saved(tmp_path)}}
    model = {"backbone": {"name": "cnn", "options": {"hidden": [4], "flatten": False}}}
    return fedjoint.simulate(settings(tmp_path, data=data, model=model))


def test_predictions_are_the_exported_models_in_files(run, tmp_path):
    x = torch.from_numpy(np.load(tmp_path / "new.npy"))
    for task in ("region", "depth", "box"):
        exported = export(run.path, task)
        exported.write(tmp_path / task)
        with pytest.raises(
            UserError, match=f"{task} is .*: give --output a name that ends in .npz"
        ):
            predict(tmp_path / task, tmp_path / "new.npy")
        with torch.no_grad():
            output = exported.model(x)
        found = predict_arrays(tmp_path / task, tmp_path / "new.npy")
        if task == "region":
            assert np.array_equal(found["region"], output.argmax(1))
            np.testing.assert_allclose(found["probability"], output.softmax(1).amax(1), rtol=1e-5)
        elif task == "depth":
            np.testing.assert_allclose(found["depth"], output, rtol=1e-4, atol=1e-5)
        else:
            boxes = decode(output, 100)
            np.testing.assert_allclose(found["box"], boxes.corners, atol=1e-5)
            np.testing.assert_allclose(found["score"], boxes.scores, rtol=1e-4)
    command = load_command("predict")
    arguments = [str(tmp_path / "region"), str(tmp_path / "new.npy")]
    command.main([*arguments, "--output", str(tmp_path / "out.npz")], standalone_mode=False)
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["region"].shape == (7, SIDE, SIDE) and set(arrays) == {
            "region",
            "probability",
        }


def test_a_preference_is_a_row_of_a_table():
    target = Target(name="better", kind="preference", outputs=2)
    assert columns(target) == ["better", "probability"]
    ((item, sure),) = rows(target, torch.tensor([[0.0, np.log(3)]]))
    assert item == "1" and float(sure) == pytest.approx(0.75)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["region", "depth", "box"])
def test_a_traced_model_of_maps_is_the_exported_one(run, task, tmp_path):
    x = torch.from_numpy(np.load(tmp_path / "new.npy"))
    exported = export(run.path, task)
    exported.write(tmp_path / "model", ["export"])
    program = torch.export.load(tmp_path / "model/model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), exported.model(x))
