"""With many clients, a sample of them is compared: the same one whatever the strategy."""

import numpy as np
import pytest
import torch

from fedjoint.clients.joint import Joint
from fedjoint.node.train import Training
from fedjoint.simulation import simulate

CLIENTS, MOST, ROUNDS = 30, 6, 4

EACH = """
from fedjoint.strategies.fedavg import FedAvg

class Each(FedAvg):
    per_client = True
"""


def move(client, round, size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1000 * round + client))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run rounds in which clients only make known moves."""

    def train(self, job):
        for row, client in zip(job.shared, job.cohort.clients.tolist(), strict=True):
            row += move(client, job.round, len(row))
        return {}

    monkeypatch.setattr(Joint, "train", train)
    (tmp_path / "each.py").write_text(EACH)

    def run(strategy="fedavg", blocks=4, **config):
        name = f"{tmp_path / strategy}:Each" if strategy.endswith(".py") else strategy
        return simulate(
            {
                "rounds": ROUNDS,
                "data": {"clients": CLIENTS, "examples_per_client": 20},
                "model": {"backbone": {"options": {"hidden": [4]}}},
                "evaluate": {"every": ROUNDS},
                "diagnostics": {"clients": MOST, "every": 2},
                "engine": {"name": "inline", "blocks": blocks},
                "output": {"dir": str(tmp_path)},
                "strategy": {"name": name},
                **config,
            }
        )

    return run


def diagnostics(result):
    return [record.diagnostics for record in result.records]


def test_sums_are_diagnosed_like_rows(run):
    summed, rows = run("fedavg"), run("each.py")
    size = sum(tensor.numel() for tensor in summed.backbone.values())
    samples = []
    for round, (one, other) in enumerate(
        zip(diagnostics(summed), diagnostics(rows), strict=True), 1
    ):
        if round % 2:
            assert one is None and other is None
            continue
        ids = one["clients"]["ids"]
        assert ids == other["clients"]["ids"] == sorted(set(ids)) and len(ids) == MOST
        samples.append(ids)
        moves = np.stack([move(client, round, size).numpy() for client in ids]).astype(float)
        lengths = np.linalg.norm(moves, axis=1)
        unit = moves / lengths[:, None]
        for found in (one, other):
            np.testing.assert_allclose(found["clients"]["cosine"], unit @ unit.T, atol=1e-4)
            pairs = (unit @ unit.T)[np.triu_indices(MOST, 1)]
            assert found["clients"]["conflicting"] == pytest.approx((pairs < 0).mean())
        np.testing.assert_allclose(one["tasks"]["cosine"], other["tasks"]["cosine"], atol=1e-4)
        assert one["step_ratio"] == pytest.approx(other["step_ratio"], rel=1e-4)
    assert samples[0] != samples[1]


def test_the_sample_is_of_the_seed_and_not_of_the_blocks(run):
    samples = [
        diagnostics(run(**how))[1]["clients"]["ids"] for how in ({}, {"blocks": 9}, {"seed": 1})
    ]
    assert samples[0] == samples[1] != samples[2]


@pytest.mark.parametrize(
    ("every", "within", "reduce"), [(0, 0, True), (2, 0, False), (0, 2, False)]
)
def test_rows_of_few_clients_travel_in_all_rounds_or_in_none(
    run, monkeypatch, every, within, reduce
):
    asked, train = [], Training.run

    def look(training, request, *rest):
        asked.append(request.reduce)
        return train(training, request, *rest)

    monkeypatch.setattr(Training, "run", look)
    run(diagnostics={"clients": CLIENTS, "every": every, "within_every": within})
    assert asked == [reduce] * ROUNDS
