"""A worker dies with private state in no checkpoint: the run ends as if nothing had happened."""

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import simulate

METHOD = """
import os
from pathlib import Path

from fedjoint.training.method import LocalMethod

FOLDER = Path(__file__).parent


class Dying(LocalMethod):
    '''Kills its process in round 4, for the first ``times`` times that it gets there.'''

    def __init__(self, times: int) -> None:
        self.times = times

    def train(self, job):
        dead = len(list(FOLDER.glob("died-*")))
        if job.round == 4 and 0 in job.cohort.clients and dead < self.times:
            (FOLDER / f"died-{dead}").touch()
            os._exit(1)
        return super().train(job)
"""


def configure(folder, times, engine="ray"):
    (folder / "dying.py").write_text(METHOD)
    return check(
        {
            "rounds": 6,
            "data": {"clients": 4, "examples_per_client": 30, "task_mix": [["digit"]]},
            "model": {"backbone": {"options": {"hidden": [8]}}},
            "local": {"method": f"{folder / 'dying.py'}:Dying", "options": {"times": times}},
            "engine": {"name": engine, "workers": 2},
            "output": {"dir": str(folder / "runs"), "checkpoint_every": 2},
        }
    )


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_run_goes_back_to_its_checkpoint_by_itself(tmp_path, two_workers):
    result = simulate(configure(tmp_path, times=1))
    assert len(list(tmp_path.glob("died-*"))) == 1
    assert RunDir.open(result.path).generation == 1
    assert [record.round for record in result.records] == [1, 2, 3, 4, 5, 6]
    assert all(record.clients.trained == 4 for record in result.records)
    whole = simulate(configure(tmp_path, times=0, engine="inline"))
    for name, tensor in whole.backbone.items():
        assert torch.equal(result.backbone[name], tensor)
    for client, state in whole.heads().items():
        for name, tensor in state.items():
            assert torch.equal(result.heads()[client][name], tensor)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_worker_that_always_dies_ends_the_run(tmp_path, two_workers):
    with pytest.raises(UserError, match=r"died, as nodes did 3 times before since round 2; they"):
        simulate(configure(tmp_path, times=100))
    (folder,) = (tmp_path / "runs").iterdir()
    assert RunDir.open(folder).info["status"] == "failed"
    assert [record.round for record in RunDir.open(folder).records()] == [1, 2, 3]
