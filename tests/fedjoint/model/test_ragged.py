"""Inputs of unequal length are padded to the example's, and nobody sees the padding."""

import re

import numpy as np
import pytest
import torch
from support.small import config
from support.zoo.inputs import ragged_text

import fedjoint
from fedjoint import Client, Examples, Problem, Task
from fedjoint.errors import UserError
from fedjoint.model.backbones.text import TextBackbone
from fedjoint.model.ragged import checked_pad, padded

IDS = torch.ones(3, 4, dtype=torch.int64)
EXAMPLE = {"ids": torch.zeros(1, 6, dtype=torch.int64), "mask": torch.zeros(1, 6, dtype=torch.bool)}


def test_rows_are_filled_up_with_the_number():
    frames = torch.ones(2, 3, 2)
    found = padded(frames, torch.zeros(1, 5, 2), {"": -7.0}, "inputs")
    assert found.shape == (2, 5, 2) and (found[:, :3] == 1).all() and (found[:, 3:] == -7).all()
    both = padded({"ids": IDS, "mask": IDS > 0}, EXAMPLE, {"ids": 2, "mask": False}, "inputs")
    assert both["ids"].tolist() == [[1] * 4 + [2] * 2] * 3
    assert (
        both["mask"].tolist() == [[True] * 4 + [False] * 2] * 3 and both["mask"].dtype == torch.bool
    )


class Sentences:
    """Clients whose sentences are of unequal length."""

    task_names = ("first",)
    sizes = np.array([9, 14, 6])
    tasks = np.ones((3, 1), bool)

    def __init__(self, length=None):
        self.length = length

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        longest = 4 + 2 * index
        x = torch.randint(1, 12, (int(self.sizes[index]) + 6, longest), generator=g)
        x = x * (torch.arange(longest) < torch.randint(1, longest + 1, (len(x), 1), generator=g))
        y = {"first": (x[:, 0] > 6).long()}
        if self.length:
            x = torch.nn.functional.pad(x, (0, self.length - longest))
        examples = Examples(x, y)
        return Client(*map(examples.take, torch.arange(len(x)).split([len(x) - 6, 3, 3])))


def simulate(tmp_path, data, length, pad):
    example = torch.ones(1, length, dtype=torch.int64)
    problem = Problem(
        [Task("first", "multiclass", 2)], lambda: TextBackbone(12, 4, 6), data, example, pad=pad
    )
    local = {"epochs": 1, "batch_size": 4}
    return fedjoint.simulate(config(tmp_path, local=local), problem)


def test_padding_is_as_if_the_user_had_padded_and_its_length_makes_no_difference(tmp_path):
    ragged = simulate(tmp_path, Sentences(), 8, 0)
    by_hand = simulate(tmp_path, Sentences(8), 8, None)
    longer = simulate(tmp_path, Sentences(), 30, 0)
    for name, tensor in by_hand.backbone.items():
        assert torch.equal(ragged.backbone[name], tensor)
        torch.testing.assert_close(longer.backbone[name], tensor, rtol=1e-4, atol=1e-6)
    assert ragged.metrics == by_hand.metrics and ragged.records[-1].clients.trained == 3


REFUSED = {
    "longer": ({"ids": torch.ones(3, 7).long()}, "'ids', have the length 7, and the example 6"),
    "mask": ({"mask": torch.ones(3, 5).bool()}, "'mask' has the length 5, and 'ids' 4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_padded_is_refused(case):
    change, words = REFUSED[case]
    x = {"ids": IDS, "mask": IDS > 0} | change
    with pytest.raises(UserError, match=re.escape(words)):
        padded(x, EXAMPLE, {"ids": 0, "mask": 0}, "client 3, train inputs")


PADS = {
    "a number for a dict": (0, EXAMPLE, "give a number for each: 'ids', 'mask'"),
    "another name": ({"idz": 0}, EXAMPLE, "did you mean 'ids'"),
    "a word": ({"ids": "0"}, EXAMPLE, "pad of ids is '0': give a number"),
    "no length": (0, torch.zeros(1), "each is one number, and has no length"),
    "a name for a tensor": ({"ids": 0}, torch.zeros(1, 3), "unknown tensor in pad 'ids'"),
}


@pytest.mark.parametrize("case", PADS)
def test_a_bad_pad_is_refused(case):
    pad, example, words = PADS[case]
    with pytest.raises(UserError, match=re.escape(words)):
        checked_pad(pad, example)


def test_a_client_that_is_too_long_is_named_before_the_first_round(tmp_path):
    class Long(Sentences):
        def client(self, index):
            found = super().client(index)
            x = torch.ones(len(found.train), 11, dtype=torch.int64)
            return Client(Examples(x, found.train.y), found.valid, found.test)

    with pytest.raises(UserError, match="client 0, train inputs have the length 11, and the exam"):
        simulate(tmp_path, Long(), 8, 0)


def test_whoever_trains_together_the_numbers_of_a_client_are_its_own(tmp_path):
    from fedjoint.training.trainer import Trainer

    settings = config(tmp_path)
    trainer = Trainer(ragged_text(settings), settings, torch.device("cpu"))
    model, few = trainer.model.eval(), []
    for places in (np.arange(4), np.array([2])):
        cohort = trainer.cohort(places, places)
        few.append(model(cohort.client(int(np.flatnonzero(places == 2)[0])).train.x)["first"])
    assert torch.equal(*few)
