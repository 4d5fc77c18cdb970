"""Streamed inputs give the numbers of the same inputs in memory, reading only a few at once."""

import pickle

import numpy as np
import pytest
import torch
from support.small import config
from torch import nn

import fedjoint
from fedjoint import Client, Examples, Problem, Stream, Task
from fedjoint.data.fingerprint import fingerprint
from fedjoint.data.loading import load_client
from fedjoint.errors import UserError
from fedjoint.training.streams import Streams

SIZES = np.array([40, 23, 11])
BATCH, MEASURED = 4, 8


class Counted:
    """Rows that note how many of them are asked for at once."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.asked.append(len(index))
        return self.rows[index]


class Points:
    task_names = ("up",)
    sizes = SIZES
    tasks = np.ones((3, 1), bool)

    def __init__(self, wrap=lambda x: x):
        self.wrap = wrap

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        x = torch.randn(int(SIZES[index]) + 10, 5, generator=g)
        x, y = self.wrap(x), {"up": (x[:, 0] > 0).long()}
        parts = torch.arange(len(x)).split([int(SIZES[index]), 10, 0])
        return Client(*(Examples(x, y).take(part) for part in parts))


def problem(data):
    return Problem(
        [Task("up", "multiclass", 2)],
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh()),
        data,
        torch.zeros(1, 5),
    )


def simulate(tmp_path, data, **local):
    settings = {"epochs": 1, "batch_size": BATCH, **local}
    evaluate = {"batch_size": MEASURED, "train": True}
    return fedjoint.simulate(config(tmp_path, local=settings, evaluate=evaluate), problem(data))


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_the_numbers_are_those_of_inputs_in_memory(tmp_path, path):
    inside = simulate(tmp_path, Points(), path=path)
    streamed = simulate(tmp_path, Points(lambda x: Stream(x.numpy())), path=path)
    assert all(torch.equal(streamed.backbone[n], t) for n, t in inside.backbone.items())
    assert streamed.metrics == inside.metrics
    assert streamed.records[-1].fallback == inside.records[-1].fallback


def test_few_rows_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("fedjoint.model.stream._PASS", MEASURED)  # of the fingerprint
    readers = []

    def counted(x):
        readers.append(Counted(x))
        return Stream(readers[-1])

    result = simulate(tmp_path, Points(counted), path="sequential")
    asked = [number for reader in readers for number in reader.asked]
    assert result.records[-1].clients.trained == 3
    assert max(asked) == MEASURED and sum(asked) > len(result.records) * SIZES.sum()


def test_residents_hold_no_streamed_inputs():
    from fedjoint.training.trainer import Trainer

    data = Points(lambda x: Stream(x.numpy()))
    trainer = Trainer(problem(data), config("."), torch.device("cpu"))
    there = np.arange(3)
    cohort = trainer.cohort(there, there)
    labels = 3 * 8 * (max(SIZES) + 1) + 3 * 8 * 11 + 3 * 8 * 1
    assert cohort.nbytes == labels


def test_a_memory_mapped_file_travels_as_its_path(tmp_path):
    whole = np.arange(200_000, dtype=np.float32).reshape(-1, 5)
    np.save(tmp_path / "x.npy", whole)
    stream = Stream(np.load(tmp_path / "x.npy", mmap_mode="r"))
    sent = pickle.dumps(stream[torch.tensor([7, 3])])
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).read(torch.arange(2)), whole[[7, 3]])
    part = pickle.dumps(Stream(np.load(tmp_path / "x.npy", mmap_mode="r")[10:]))
    np.testing.assert_array_equal(pickle.loads(part).read(torch.tensor([0]))[0], whole[10])


def test_the_fingerprint_changes_with_a_row_and_with_the_order():
    def of(x):
        return fingerprint(Client(*[Examples(Stream(x), {})] * 3))

    x = np.arange(3000.0).reshape(-1, 3).astype(np.float32)
    other, swapped = x.copy(), x.copy()
    other[700, 1] += 1
    swapped[[5, 6]] = swapped[[6, 5]]
    assert of(x) == of(x.copy()) and len({of(x), of(other), of(swapped), of(x[:-1])}) == 4


class Broken:
    def __init__(self, act, rows=50):
        self.act, self.rows = act, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        return self.act(index)


BROKEN = {
    "raises": (lambda index: 1 / 0, "its data cannot be read|rows cannot be read: ZeroDivision"),
    "too few": (lambda index: torch.zeros(1, 5), r"of \d+ rows it reads 1"),
    "a list": (lambda index: [[0.0] * 5 for _ in index], "are of type list: give tensors"),
    "narrow": (lambda index: torch.zeros(len(index), 4), r"are torch.float32 \[4\], and the mod"),
    "infinite": (lambda index: torch.full((len(index), 5), torch.inf), "is not finite"),
    "doubles": (lambda index: np.zeros((len(index), 5)), r"are torch.float64 \[5\], and the mod"),
    "a dict": (lambda index: {"x": torch.zeros(len(index), 5)}, "give every client the same kind"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_reader_is_refused_before_the_first_round(case, tmp_path):
    act, words = BROKEN[case]
    with pytest.raises(UserError, match=words) as caught:
        simulate(tmp_path, Points(lambda x: Stream(Broken(act, len(x)))))
    assert "\n" not in str(caught.value)


def test_what_has_no_rows_is_refused():
    with pytest.raises(UserError, match="reads from generator, which has no rows"):
        Stream(x for x in range(3))


def test_labels_are_as_many_as_rows():
    class Short(Points):
        def client(self, index):
            found = super().client(index)
            y = {"up": found.train.y["up"][1:]}
            return Client(Examples(found.train.x, y), found.valid, found.test)

    with pytest.raises(UserError, match=r"'up' are \(39,\), and its inputs \(40,\)"):
        load_client(Short(lambda x: Stream(x.numpy())), 0)


def test_some_of_the_clients_are_read_in_any_order():
    parts = [torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (4, 2, 3)]
    rows = 5
    whole = torch.stack([torch.cat([x, x[:1].expand(rows - len(x), -1)]) for x in parts])
    streams = Streams([Stream(x) for x in parts], rows, torch.device("cpu"))
    index = torch.tensor([[2 * rows + 1, 2 * rows + 2], [rows + 1, rows + 4]])
    assert torch.equal(streams.take(index), whole.flatten(0, 1)[index])
