"""Every seed: independent of what else is drawn, and as documented."""

import itertools

import numpy as np
import pytest
import torch

from fedjoint.randomness import Purpose, derive, generator, seeded

CPU = torch.device("cpu")


def splitmix(state):
    """Return SplitMix64's next number, in whole numbers of Python."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_the_oracle_is_splitmix64():
    # The first number of the reference implementation seeded with 1234567.
    assert splitmix(1234567) == 6457827717110365317


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_numbers_are_mixed_by_splitmix64(seed):
    expected = splitmix(seed)
    for part in (10, 1, 2):  # a published seed must not change its meaning: TRAINING is 10
        expected = splitmix(expected ^ part)
    assert int(derive(seed, Purpose.TRAINING, 1, 2)) == expected


def test_purposes_keep_their_values():
    assert [purpose.value for purpose in Purpose] == list(range(len(Purpose)))


def test_a_number_is_its_own_whatever_is_derived_beside_it():
    clients, rounds = np.array([5, 0, 7]), np.array([1, 2])
    table = derive(3, Purpose.TRAINING, clients[:, None], rounds)
    for (i, client), (j, round) in itertools.product(enumerate(clients), enumerate(rounds)):
        assert table[i, j] == derive(3, Purpose.TRAINING, int(client), int(round))


def test_no_two_keys_of_a_run_share_a_number():
    parts = np.arange(50)
    tables = [
        derive(seed, purpose, parts[:, None], parts)
        for seed, purpose in itertools.product([0, 1, 2**62], Purpose)
    ]
    everything = np.concatenate([table.ravel() for table in tables])
    assert len(np.unique(everything)) == len(everything)


def test_bits_are_even():
    drawn = derive(0, Purpose.MINIBATCHES, np.arange(20_000))
    bits = np.unpackbits(drawn.view(np.uint8)).reshape(len(drawn), 64).mean(0)
    assert abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(len(drawn))


def test_names_have_numbers_of_their_own():
    numbers = {int(derive(0, Purpose.HEAD, name)) for name in ("ink", "digit", "", "ink ")}
    assert len(numbers) == 4


def test_a_generator_goes_by_its_key_alone():
    first = generator(1, Purpose.MERGE, 2, 3).random(4)
    generator(1, Purpose.MERGE, 2, 4).random(4)
    assert np.array_equal(first, generator(1, Purpose.MERGE, 2, 3).random(4))
    assert not np.array_equal(first, generator(1, Purpose.MERGE, 3, 2).random(4))


def test_seeded_draws_as_torch_does_and_leaves_no_trace():
    torch.manual_seed(7)
    expected = torch.rand(3)
    before = torch.random.get_rng_state()
    with seeded(CPU, 7):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(KeyError), seeded(CPU, 7):
        raise KeyError
    assert torch.equal(torch.random.get_rng_state(), before)
