"""What strategies know of clients by id, against a dict."""

import random

import torch

from fedjoint.strategies._places import known_of, nobody, noted


def test_it_is_a_dict_of_ids_however_large():
    known, expected = nobody(), {}
    draw = random.Random(0)
    ids = [0, 3, 7, 10**9, 2**40, 2**40 + 1]
    for number in range(30):
        some = draw.sample(ids, draw.randrange(4))
        expected |= dict.fromkeys(some, number)
        clients = torch.tensor(some, dtype=torch.int64)
        known = noted(known, clients, torch.full_like(clients, number))
        found = known_of(torch.tensor([*ids, 5]), known, -1).tolist()
        assert found == [expected.get(client, -1) for client in [*ids, 5]]
        assert known.shape == (2, len(expected))
