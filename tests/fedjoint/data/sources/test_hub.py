"""The hub is faked by a module with the two calls that are used of Flower Datasets."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from fedjoint.config.data import DataConfig
from fedjoint.data.dataset import TEST, TRAIN
from fedjoint.data.sources.hub import Hub
from fedjoint.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, 2), np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
COLUMNS = {
    "image": list(PIXELS),
    "photo": list(COLOURS),
    "ragged": [[1.0], [1.0, 2.0], [0.0], [0.0]],
    "text": ["a b", "b", "c", "a"],
    "label": [1, 0, 2, None],
    "flags": [[True, False], [False, False], [True, True], [False, True]],
    "writer": ["u", "v", "u", "u"],
}


class Rows(dict):
    column_names = tuple(COLUMNS)

    def __len__(self):
        return 4


class FederatedDataset:
    def __init__(self, *, dataset, partitioners):
        self.known = (dataset, list(partitioners.values())) == ("some/set", [1])

    def load_split(self, split):
        if not self.known:
            raise ConnectionError("Couldn't reach it\nand more")
        return Rows(COLUMNS)


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    module = ModuleType("flwr_datasets")
    module.FederatedDataset = FederatedDataset
    monkeypatch.setitem(sys.modules, "flwr_datasets", module)


def load(name="some/set", input="image", targets=None, **settings):
    own = {key: settings.pop(key) for key in ("partition", "outputs") if key in settings}
    targets = targets or {"label": "multiclass", "flags": "multilabel"}
    return Hub(name, targets, input=input, **settings).load(DataConfig.model_validate(own))


def test_images_and_labels():
    dataset = load(partition="natural", client_column="writer")
    np.testing.assert_allclose(dataset.examples.x[:, 0], PIXELS / 255.0, rtol=1e-6)
    assert dataset.examples.y["label"].tolist() == [1, 0, 2, -1]
    assert dataset.examples.y["flags"].tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]]
    assert dataset.owner.tolist() == ["u", "v", "u", "u"]


def test_a_test_split_stays_the_test_set():
    dataset = load(test_split="test")
    assert dataset.split.tolist() == [TRAIN] * 4 + [TEST] * 4
    np.testing.assert_allclose(dataset.examples.x[4:, 0], PIXELS / 255.0, rtol=1e-6)
    with pytest.raises(UserError, match="'train' is split and test_split; name two splits"):
        load(test_split="train")


def test_colour_images_come_channels_first():
    x = load(input="photo").examples.x
    assert x.shape == (4, 3, 5, 6)
    assert x[1, 2, 3, 4] == torch.tensor(COLOURS[1, 3, 4, 2] / 255, dtype=torch.float32)


def test_text_becomes_word_ids():
    x = load(input="text", max_length=3).examples.x
    assert x.shape == (4, 3) and x[0, 0] == x[3, 0] and x[0, 1] == x[1, 0] and x[1, 1] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "other"}, "cannot load split 'train' of hub dataset 'other': Couldn't reach it$"),
        ({"input": "img"}, "unknown column 'img'"),
        ({"targets": {"lable": "multiclass"}}, "unknown column 'lable'.*did you mean 'label'"),
        ({"input": "ragged"}, "'ragged' of row 1 is no array of numbers of shape"),
        ({"outputs": {"label": 2}}, "some/set/train: row 2: label '2' of 'label' is class 2"),
    ],
)
def test_bad_requests(settings, message):
    with pytest.raises(UserError, match=message):
        load(**settings)


def test_without_flower_datasets_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'fedjoint\[hub\]'"):
        load()


def test_real_flower_datasets_reads_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "flwr_datasets")
    pytest.importorskip("flwr_datasets", reason="flwr-datasets is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("text,label\na b,0\nb,1\nc,1\n")
    dataset = load(str(tmp_path / "set"), "text", {"label": "multiclass"})
    assert sorted(dataset.examples.y["label"].tolist()) == [0, 1, 1]
