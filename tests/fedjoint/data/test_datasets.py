"""Datasets of PyTorch and Hugging Face give the clients that tensors made by hand give."""

import numpy as np
import pytest
import torch
from support.small import config
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import fedjoint
from fedjoint import Problem, Task
from fedjoint.data.loading import load_client
from fedjoint.errors import UserError
from fedjoint.model.backbones.text import TextBackbone
from fedjoint.model.stream import Stream, loaded

TASK = Task("up", "multiclass", 2)
SUM = Task("sum", "regression", 1)


def points(count, seed):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long()


def backbone():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh())


class ByTask(Dataset):
    """Pairs of an input and labels by task; every third sum is missing."""

    def __init__(self, count, seed, tasks=("up", "sum")):
        self.x, self.tasks = points(count, seed)[0], tasks

    def __len__(self):
        return len(self.x)

    def __getitem__(self, at):
        x = self.x[at]
        y = {"up": bool(x[0] > 0), "sum": None if at % 3 == 2 else float(x.sum())}
        return x.numpy(), {name: y[name] for name in self.tasks}


def three(seed):
    return tuple(TensorDataset(*points(count, seed + k)) for k, count in enumerate((12, 4, 5)))


@pytest.mark.parametrize("stream", [False, True])
def test_clients_with_sets_of_their_own_hold_them(stream):
    datasets = {"alice": three(0), "bob": (three(10)[0], None, three(10)[2])}
    problem = Problem.from_datasets([TASK], backbone, datasets, stream=stream)
    assert problem.data.sizes.tolist() == [12, 12] and problem.data.tasks.all()
    alice, bob = (load_client(problem.data, place) for place in (0, 1))
    for split, part in zip(("train", "valid", "test"), three(0), strict=True):
        found = getattr(alice, split)
        assert isinstance(found.x, Stream) == stream
        assert torch.equal(loaded(found.x), part.tensors[0])
        assert torch.equal(found.y["up"], part.tensors[1])
    assert len(bob.valid) == 0 and len(bob.test) == 5
    assert torch.equal(problem.example, three(0)[0].tensors[0][:1])


def test_one_dataset_a_client_is_split_by_the_fractions():
    x, y = points(50, 3)
    datasets = {"a": TensorDataset(x, y), "b": TensorDataset(x[:20], y[:20])}
    settings = fedjoint.Config(seed=4, data=fedjoint.DataConfig(valid_fraction=0.2))
    problem = Problem.from_datasets([TASK], backbone, datasets, config=settings)
    client = load_client(problem.data, 0)
    parts = (client.train, client.valid, client.test)
    assert [len(part) for part in parts] == [30, 10, 10]
    found = torch.cat([part.x for part in parts])
    assert torch.equal(found[found[:, 0].argsort()], x[x[:, 0].argsort()])
    assert all(torch.equal((part.x[:, 0] > 0).long(), part.y["up"]) for part in parts)
    again = Problem.from_datasets([TASK], backbone, datasets, config=settings)
    assert torch.equal(load_client(again.data, 0).test.x, client.test.x)


def test_tasks_are_those_of_a_clients_labels_and_none_is_missing():
    datasets = {"both": ByTask(9, 0), "one": ByTask(9, 1, ("up",))}
    settings = fedjoint.Config(data=fedjoint.DataConfig(valid_fraction=0, test_fraction=0))
    problem = Problem.from_datasets([TASK, SUM], backbone, datasets, config=settings)
    assert problem.data.tasks.tolist() == [[True, True], [True, False]]
    train = load_client(problem.data, 0).train
    assert int(train.y["sum"].isnan().sum()) == 3 and train.y["sum"].shape == (9, 1)
    known = ~train.y["sum"].isnan()[:, 0]
    torch.testing.assert_close(train.y["sum"][known, 0], train.x.sum(1)[known])


@pytest.mark.parametrize("stream", [False, True])
def test_one_dataset_is_divided_as_the_settings_say(stream):
    x, y = points(120, 5)
    settings = fedjoint.Config(data=fedjoint.DataConfig(clients=4, partition="iid"))
    problem = Problem.from_datasets(
        [TASK], backbone, TensorDataset(x, y), stream=stream, config=settings
    )
    clients = [load_client(problem.data, place) for place in range(4)]
    everything = torch.cat([loaded(s.x) for c in clients for s in (c.train, c.valid, c.test)])
    assert torch.equal(everything[everything[:, 0].argsort()], x[x[:, 0].argsort()])
    assert all(((loaded(c.train.x)[:, 0] > 0).long() == c.train.y["up"]).all() for c in clients)


def test_a_test_set_of_its_own_stays_the_test_set():
    train, test = points(60, 5), points(20, 6)
    sets = (TensorDataset(*train), None, TensorDataset(*test))
    settings = fedjoint.Config(data=fedjoint.DataConfig(clients=3, partition="iid"))
    problem = Problem.from_datasets([TASK], backbone, sets, config=settings)
    tested = torch.cat([load_client(problem.data, place).test.x for place in range(3)])
    assert torch.equal(tested[tested[:, 0].argsort()], test[0][test[0][:, 0].argsort()])


def test_streamed_and_in_memory_learn_alike(tmp_path):
    results = [
        fedjoint.simulate(
            config(tmp_path, rounds=2),
            Problem.from_datasets(
                [TASK, SUM],
                backbone,
                {"a": ByTask(20, 0), "b": (ByTask(30, 1), None, ByTask(5, 2))},
                stream=stream,
            ),
        )
        for stream in (False, True)
    ]
    assert all(torch.equal(results[1].backbone[n], t) for n, t in results[0].backbone.items())
    assert results[0].metrics == results[1].metrics and results[0].records[-1].clients.trained == 2


SENTENCES = [[1, 2, 3], [4], [5, 6, 7, 8], [2, 2]] * 6


@pytest.fixture
def rows():
    datasets = pytest.importorskip("datasets")
    columns = {
        "ids": SENTENCES,
        "mask": [[1] * len(s) for s in SENTENCES],
        "label": [s[0] % 2 for s in SENTENCES],
        "text": ["some words"] * len(SENTENCES),
        "who": [f"person {at % 2}" for at in range(len(SENTENCES))],
    }
    return datasets.Dataset.from_dict(columns)


@pytest.mark.parametrize("stream", [False, True])
def test_columns_of_hugging_face_are_padded_to_the_longest(rows, stream):
    problem = Problem.from_datasets(
        [Task("odd", "multiclass", 2)],
        lambda: TextBackbone(9, 4, 6),
        {"a": (rows.select(range(8)), None, rows.select([1])), "b": (rows, None, None)},
        inputs=["ids", "mask"],
        targets={"odd": "label"},
        pad={"ids": 0, "mask": 0},
        stream=stream,
    )
    assert problem.example["ids"].tolist() == [[1, 2, 3, 0]]
    assert problem.example["mask"].tolist() == [[1, 1, 1, 0]]
    train = load_client(problem.data, 0).train
    found = problem.fitted(train.x, "inputs")
    assert loaded(found)["ids"].tolist() == [
        sentence + [0] * (4 - len(sentence)) for sentence in SENTENCES[:8]
    ]
    assert train.y["odd"].tolist() == [s[0] % 2 for s in SENTENCES[:8]]


def test_rows_go_to_their_owners_and_train(rows, tmp_path):
    settings = fedjoint.Config(data=fedjoint.DataConfig(partition="natural", min_examples=1))
    problem = Problem.from_datasets(
        [Task("label", "multiclass", 2)],
        lambda: TextBackbone(9, 4, 6),
        rows,
        inputs="ids",
        pad=0,
        owner="who",
        config=settings,
    )
    client = load_client(problem.data, 1)
    firsts = torch.cat([part.x[:, 0] for part in (client.train, client.valid, client.test)])
    assert sorted(firsts.tolist()) == sorted(s[0] for s in SENTENCES[1::2])
    result = fedjoint.simulate(config(tmp_path, rounds=1), problem)
    assert result.records[-1].clients.trained == 2


class Items(list):
    """A dataset of these items."""


class Fails(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, at):
        raise KeyError("no such file")


class Random(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, at):
        return torch.rand(4), 1


def pairs(*labels):
    return Items([(torch.zeros(4), label) for label in labels])


WRONG = {
    "nobody": ({}, "there are no clients: give a dict of name -> dataset"),
    "no dataset": ({"a": 3}, "client 'a' is a int, without a length or items"),
    "an iterator": ({"a": iter([1])}, "client 'a' is a list_iterator, without a length or items"),
    "two sets": ({"a": (pairs(1), pairs(0))}, "client 'a': give a dataset, or .train, valid"),
    "a dict of sets": (
        {"a": {"train": pairs(1)}},
        "is a dict of 'train': give .train, val",
    ),
    "empty": ({"a": pairs()}, "client 'a' has no items to train on"),
    "raises": ({"a": Fails()}, "client 'a', train: its items cannot be read: KeyError"),
    "random": ({"a": Random()}, "is another each time that it is read: leave random transforms"),
    "no pair": ({"a": Items([torch.zeros(4)] * 9)}, "an item is of type torch.Tensor: give pairs"),
    "a name": ({"a": pairs(*[{"upp": 1}] * 9)}, "unknown task in the labels.*did you mean 'up'"),
    "nobody's": ({"a": pairs(*[{}] * 9)}, "no client has a label of task 'up'"),
    "columns": ({"a": Items([{"x": 1, "y": 2}] * 9)}, "items have the columns 'x', 'y': name some"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_dataset_is_refused(case):
    datasets, words = WRONG[case]
    with pytest.raises(UserError, match=words) as caught:
        Problem.from_datasets([TASK], backbone, datasets)
    assert "\n" not in str(caught.value)


LATER = {
    "half a class": (pairs(*[0.5] * 9), "is 0.5: classes are whole numbers from 0"),
    "text": (pairs(*["yes"] * 9), "label of task 'up' is of type str: make numbers of it"),
    "two": (pairs(*[[1, 0]] * 9), r"is of shape \(2,\), and a multiclass task needs \(\)"),
    "input text": (Items([("a word", 1)] * 9), "the input is of type str: make numbers of it"),
    "lengths": (
        Items([(torch.zeros(3), 1)] + [(torch.zeros(4), 1)] * 20),
        r"of one item and torch.float32 \([34],\) of another: give one type and shape, or set pad",
    ),
    "class 7": (pairs(*[7] * 9), "class 7 of 2; number classes from 0"),
}


@pytest.mark.parametrize("case", LATER)
def test_a_bad_item_is_refused_before_the_first_round(case, tmp_path):
    dataset, words = LATER[case]
    with pytest.raises(UserError, match=words) as caught:
        problem = Problem.from_datasets([TASK], backbone, {"a": dataset})
        fedjoint.simulate(config(tmp_path), problem)
    assert "\n" not in str(caught.value)


COLUMNS = {
    "input": ({"inputs": "idz"}, "unknown column in inputs.*did you mean 'ids'"),
    "target": ({"inputs": "ids", "targets": {"odd": "labl"}}, "name its column in targets"),
    "owner": ({"inputs": "ids", "targets": {"odd": "label"}, "owner": "whom"}, "no such column"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_a_column_that_is_not_there_is_named(case, rows):
    options, words = COLUMNS[case]
    datasets = rows if "owner" in options else {"a": rows}
    with pytest.raises(UserError, match=words):
        Problem.from_datasets([Task("odd", "multiclass", 2)], backbone, datasets, pad=0, **options)


def test_several_tasks_need_labels_by_name():
    with pytest.raises(UserError, match="has one label, of 'up', 'sum': give a dict by task"):
        Problem.from_datasets([TASK, SUM], backbone, {"a": pairs(*[1] * 9)})


def test_numbers_of_any_usual_type_are_taken():
    items = Items([(np.zeros(4, np.float64), np.int32(1)), ([0.0, 1, 2, 3], True)] * 6)
    problem = Problem.from_datasets([TASK], backbone, {"a": (items, None, None)})
    train = load_client(problem.data, 0).train
    assert train.x.dtype == torch.float32 and train.y["up"].tolist() == [1] * 12
