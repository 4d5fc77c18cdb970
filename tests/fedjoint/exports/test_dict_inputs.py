"""An exported model of a dict of inputs reads .npz, and predicts what the model in memory does."""

import numpy as np
import pytest
import torch
from torch import nn

import fedjoint
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.exports.inputs import read_inputs
from fedjoint.exports.predict import predict
from fedjoint.model.inputs import Inputs

READS = {
    "ids": Inputs(shape=(4,), dtype="int64", vocabulary=9),
    "mask": Inputs(shape=(4,), dtype="bool"),
    "age": Inputs(shape=(1,), dtype="float32"),
}


class Words(nn.Module):
    """The mean of the words that the mask lets through, and an age."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 3), nn.Linear(4, 5)

    def forward(self, x):
        mask = x["mask"].float().unsqueeze(-1)
        mean = (self.table(x["ids"]) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return self.layer(torch.cat([mean, x["age"]], 1)).tanh()


def inputs(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "ids": torch.randint(9, (n, 4), generator=g),
        "mask": torch.rand(n, 4, generator=g) < 0.7,
        "age": torch.rand(n, 1, generator=g),
    }


class Notes:
    task_names = ("old",)
    sizes = np.array([20, 20])
    tasks = np.ones((2, 1), bool)

    def client(self, index):
        x = inputs(30, index)
        examples = fedjoint.Examples(x, {"old": (x["age"][:, 0] > 0.5).long()})
        return fedjoint.Client(*map(examples.take, torch.arange(30).split([20, 5, 5])))


def problem():
    return fedjoint.Problem([fedjoint.Task("old", "multiclass", 2)], Words, Notes(), inputs(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notes")
    settings = {"rounds": 2, "engine": "inline", "output": {"dir": str(folder)}}
    result = fedjoint.simulate(settings, problem())
    assert result.records[-1].fallback is None
    return export(result.path, "old", problem=problem())


def test_the_card_describes_every_tensor(exported):
    read = exported.card.inputs
    assert {name: own.model_copy(update={"columns": None}) for name, own in read.items()} == READS


def test_torch_export_takes_the_dict(exported, tmp_path):
    exported.write(tmp_path / "m", ["export"])
    program = torch.export.load(tmp_path / "m/model.pt2").module()
    x = inputs(7, 5)
    torch.testing.assert_close(program(x), exported.model(x))


def test_predictions_are_the_models(exported, tmp_path):
    pytest.importorskip("onnxruntime")
    exported.write(tmp_path / "m", ["onnx"])
    x = inputs(50, 5)
    arrays = {name: tensor.numpy() for name, tensor in x.items()}
    np.savez(tmp_path / "x.npz", **dict(reversed(arrays.items())))
    names, rows = predict(tmp_path / "m", tmp_path / "x.npz")
    with torch.no_grad():
        best, chosen = exported.model(x).softmax(1).max(1)
    assert names == ["old", "probability"]
    assert [int(row[0]) for row in rows] == chosen.tolist()
    assert [float(row[1]) for row in rows] == pytest.approx(best.tolist(), abs=1e-5)


WRONG = {
    "missing": ({"mask": None}, "reads .npz (numpy.savez) of arrays 'ids', 'mask', 'age'"),
    "shape": ({"mask": np.ones((3, 5), bool)}, "the model reads [n, *(4,)]"),
    "rows": ({"age": np.ones((2, 1))}, "differ in the number of examples: 'ids' 3, 'mask' 3, 'a"),
    "type": ({"ids": np.ones((3, 4))}, "the model reads whole numbers"),
    "infinite": ({"age": np.full((3, 1), np.inf)}, "row 0 (from 0) has a number that is not fini"),
    "objects": ({"age": np.array([[None]] * 3)}, "reads .npz"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_does_not_fit_is_refused(case, tmp_path):
    change, words = WRONG[case]
    arrays = {name: tensor.numpy() for name, tensor in inputs(3).items()} | change
    np.savez(tmp_path / "x.npz", **{n: a for n, a in arrays.items() if a is not None})
    with pytest.raises(UserError) as caught:
        read_inputs(tmp_path / "x.npz", READS)
    assert words in str(caught.value) and "x.npz" in str(caught.value)


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.txt"])
def test_another_kind_of_file_is_refused(name, tmp_path):
    (tmp_path / name).write_text("1,2\n")
    with pytest.raises(UserError, match=r"reads \.npz"):
        read_inputs(tmp_path / name, READS)
