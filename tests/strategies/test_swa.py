"""SWA: the last backbone is the mean of those that FedAvg went through."""

import numpy as np
import pytest
import torch

from fedjoint.config.load import check
from fedjoint.simulation import resume, simulate


def config(tmp_path, strategy, **more):
    tree = {
        "rounds": 4,
        "engine": "inline",
        "data": {"clients": 4, "task_mix": [["digit"]]},
        "model": {"backbone": {"options": {"hidden": [4]}}},
        "local": {"steps": 2, "batch_size": 8},
        "strategy": strategy,
        "output": {"dir": str(tmp_path), "checkpoint_every": 1},
    }
    return check(tree | more)


@pytest.mark.parametrize("begin", [0.0, 0.5, 0.75])
def test_it_ends_in_the_mean_of_the_backbones_of_fedavg(tmp_path, begin):
    # Rounds draw their minibatches by number alone: shorter runs are beginnings of the longer.
    after = [
        simulate(config(tmp_path, {"name": "fedavg"}, rounds=rounds)).backbone
        for rounds in (1, 2, 3, 4)
    ]
    after = after[int(begin * 4) :]
    found = simulate(config(tmp_path, {"name": "swa", "options": {"begin": begin}})).backbone
    for name, tensor in found.items():
        expected = torch.stack([backbone[name] for backbone in after]).mean(0)
        torch.testing.assert_close(tensor, expected)


def test_what_is_averaged_survives_resumption(tmp_path):
    strategy = {"name": "swa", "options": {"begin": 0.0}}
    whole = simulate(config(tmp_path, strategy)).backbone

    def stop(record):
        if record.round == 2:
            raise StopIteration

    cut = simulate(config(tmp_path, strategy), callbacks=[stop])
    assert len(cut.records) == 2
    resumed = resume(cut.path, rounds=4).backbone
    assert all(np.array_equal(whole[n], resumed[n]) for n in whole)
