"""The ledger is a dict of client -> round."""

import numpy as np
import pytest

from fedjoint.runs.ledger import Ledger


@pytest.mark.parametrize("seed", range(3))
def test_a_ledger_is_a_plain_dict(seed):
    random = np.random.default_rng(seed)
    ledger, oracle, losses = Ledger(), {}, {}
    for round in range(1, 30):
        clients = random.choice(40, random.integers(0, 9), replace=False)
        own = random.random(len(clients)).astype(np.float32)
        ledger.count(clients, round, own)
        oracle |= dict.fromkeys(clients.tolist(), round)
        losses |= dict(zip(clients.tolist(), own.tolist(), strict=True))
        asked = random.integers(0, 50, 12)
        assert ledger.of(asked).tolist() == [oracle.get(client, 0) for client in asked.tolist()]
        known = [losses.get(client, np.nan) for client in asked.tolist()]
        np.testing.assert_array_equal(ledger.losses_of(asked), np.float32(known))
    assert dict(zip(ledger.clients.tolist(), ledger.rounds.tolist(), strict=True)) == oracle
    again = Ledger.from_tensors(ledger.tensors())
    assert again.of(np.arange(50)).tolist() == ledger.of(np.arange(50)).tolist()
    np.testing.assert_array_equal(again.losses, ledger.losses)
