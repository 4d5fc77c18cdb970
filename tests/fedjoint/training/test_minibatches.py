"""Every example has its turn, whatever the sizes of the clients, and whoever is drawn beside it."""

import warnings

import numpy as np
import pytest
from torch.utils.data import DataLoader

from fedjoint.training.minibatches import schedule

SIZES = [1, 2, 3, 15, 16, 17, 31, 32, 33, 100]


def drawn(clients, sizes, **budget):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return schedule(5, 3, np.array(clients), np.array(sizes), **budget)


def batches(found, row):
    """Return the minibatches of one client, as lists."""
    pairs = zip(found.index[:, row], found.mask[:, row], strict=True)
    return [index[mask].tolist() for index, mask in pairs if mask.any()]


@pytest.mark.parametrize("batch_size", [1, 2, 16, 33, 1000])
def test_an_epoch_has_every_example_once(batch_size):
    clients, epochs = [7 * i for i in range(len(SIZES))], 3
    found = drawn(clients, SIZES, batch_size=batch_size, epochs=epochs)
    for row, size in enumerate(SIZES):
        own = batches(found, row)
        lengths = [batch_size] * (size // batch_size) + [size % batch_size] * (
            size % batch_size > 0
        )
        assert [len(batch) for batch in own] == lengths * epochs
        assert found.steps[row] == len(own)
        for epoch in range(epochs):
            part = own[epoch * len(lengths) : (epoch + 1) * len(lengths)]
            assert sorted(i for batch in part for i in batch) == list(range(size))


@pytest.mark.parametrize("batch_size", [1, 2, 16, 33])
def test_short_batches_are_left_out_as_a_data_loader_does(batch_size):
    found = drawn(range(len(SIZES)), SIZES, batch_size=batch_size, epochs=2, drop_last=True)
    whole = drawn(range(len(SIZES)), SIZES, batch_size=batch_size, epochs=2)
    assert found.mask.any((1, 2)).all(), "a step without anybody"
    for row, size in enumerate(SIZES):
        loader = DataLoader(range(size), batch_size, drop_last=True)
        assert [len(batch) for batch in batches(found, row)] == [len(b) for b in loader] * 2
        full = [batch for batch in batches(whole, row) if len(batch) == batch_size]
        assert batches(found, row) == full


@pytest.mark.parametrize("steps", [1, 7, 40])
@pytest.mark.parametrize("batch_size", [1, 2, 16, 33, 1000])
def test_steps_take_every_example_before_any_comes_again(batch_size, steps):
    clients = [7 * i for i in range(len(SIZES))]
    found = drawn(clients, SIZES, batch_size=batch_size, steps=steps)
    for row, size in enumerate(SIZES):
        own = batches(found, row)
        assert [len(batch) for batch in own] == [min(batch_size, size)] * steps
        taken = [i for batch in own for i in batch]
        for start in range(0, len(taken), size):
            turn = taken[start : start + size]
            assert len(set(turn)) == len(turn) and set(turn) <= set(range(size))


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"steps": 9}], ids=["epochs", "steps"])
@pytest.mark.parametrize("batch_size", [2, 16, 1000])
def test_a_client_s_order_is_its_own(batch_size, budget):
    clients = list(range(len(SIZES)))
    together = drawn(clients, SIZES, batch_size=batch_size, **budget)
    for row, size in enumerate(SIZES):
        alone = drawn([row], [size], batch_size=batch_size, **budget)
        assert batches(alone, 0) == batches(together, row)


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"steps": 9}], ids=["epochs", "steps"])
@pytest.mark.parametrize("sizes", [[0], [0, 5], [3, 0, 0]])
def test_a_client_without_examples_takes_no_steps(sizes, budget):
    found = drawn(list(range(len(sizes))), sizes, batch_size=4, **budget)
    for row, size in enumerate(sizes):
        assert bool(batches(found, row)) == bool(size)
    assert not found.mask[:, np.array(sizes) == 0].any()


@pytest.mark.parametrize("budget", [{"epochs": 3}, {"steps": 5}])
def test_packed_clients_take_their_own_steps_without_a_pause(budget):
    found = drawn(range(len(SIZES)), SIZES, batch_size=16, **budget)
    packed, clients = found.packed()
    assert sorted(clients) == list(range(len(SIZES)))
    takes = packed.mask.any(2)
    assert (np.diff(takes.astype(int), axis=0) <= 0).all(), "a pause"
    assert (np.diff(takes.sum(0)) <= 0).all(), "one with more steps comes later"
    for row, client in enumerate(clients):
        assert batches(packed, row) == batches(found, client)
