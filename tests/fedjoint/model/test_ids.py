"""Which ids a model knows, found by looking on, and what is said of others."""

import pytest
import torch
from torch import nn

from fedjoint import Task
from fedjoint.errors import UserError
from fedjoint.model.each_item import EachItem
from fedjoint.model.ids import check_ids, vocabulary
from fedjoint.model.joint import build_model


class Columns(nn.Module):
    """A city and a street of one tensor; the third number is no id."""

    def __init__(self):
        super().__init__()
        self.city, self.street = nn.Embedding(5, 2), nn.Embedding(9, 2)

    def forward(self, x):
        return torch.cat([self.city(x[:, 0]), self.street(x[:, 1]), x[:, 2:].float()], 1)


class Moved(nn.Embedding):
    def forward(self, x):
        return super().forward(x + 1).mean(1)


def known(backbone, example):
    return build_model(lambda: backbone, [Task("a", "multiclass", 2)], example, seed=0).ids


def zeros(*shape):
    return torch.zeros(1, *shape, dtype=torch.int64)


def test_each_number_has_the_ids_of_the_embedding_that_reads_it():
    found = known(Columns(), zeros(3))
    assert found[""][:2].tolist() == [5, 9] and vocabulary(found, "") is None
    good = torch.tensor([[4, 8, 1000], [0, 0, -7]])
    check_ids(good, found, "inputs")
    for column, wrong, most in ((0, 5, 4), (1, 9, 8), (0, -1, 4)):
        bad = good.clone()
        bad[1, column] = wrong
        with pytest.raises(UserError) as caught:
            check_ids(bad, found, "client 3, test inputs")
        words = f"client 3, test inputs: example 1 has the id {wrong}, and the model's embedding"
        assert str(caught.value).startswith(words) and f"0 to {most}:" in str(caught.value)


def test_items_and_dicts_are_seen_through():
    class Mean(nn.Embedding):
        def forward(self, x):
            return super().forward(x["ids"]).mean(-2)

    example = {"ids": zeros(2, 4), "mask": zeros(2, 4).bool(), "age": torch.zeros(1, 2, 1)}
    found = known(EachItem(Mean(7, 3)), example)
    assert found.keys() == {"ids"} and found["ids"].shape == (2, 4)
    assert vocabulary(found, "ids") == 7 and vocabulary(found, "age") is None


def test_nothing_is_known_of_ids_that_are_computed():
    assert known(Moved(7, 3), zeros(4)) == {}
    assert known(nn.Sequential(nn.Linear(4, 3)), torch.zeros(1, 4)) == {}
