"""A job that exceeds the device's memory is divided; a client that exceeds it alone fails."""

import weakref

import pytest
import torch

import fedjoint
from fedjoint.training.trainer import Trainer

CLIENTS = 12


def run(folder):
    return fedjoint.simulate(
        {
            "rounds": 2,
            "engine": {"name": "inline", "blocks": 1},
            "data": {"clients": CLIENTS, "examples_per_client": 20, "task_mix": [["digit"]]},
            "output": {"dir": str(folder)},
        }
    )


@pytest.fixture
def bounded(monkeypatch):
    """Let a device have memory for so many clients at once; tell which numbers were tried."""
    tried, job = [], Trainer.job

    def bound(most):
        def made(self, cohort, *rest):
            tried.append(len(cohort))
            if len(cohort) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return job(self, cohort, *rest)

        monkeypatch.setattr(Trainer, "job", made)
        return tried

    return bound


def test_jobs_are_halved_and_stay_so(tmp_path, bounded, caplog):
    whole = run(tmp_path / "whole")
    tried = bounded(3)
    divided = run(tmp_path / "divided")
    assert tried.count(12) == 1  # in the first round alone
    assert all(record.clients.trained == CLIENTS for record in divided.records)
    said = "jobs of more than 3 clients exceed the memory of cpu"
    assert divided.records[-1].fallback == said
    assert sum(said in each.getMessage() for each in caplog.records) == 1
    for name, values in whole.backbone.items():
        torch.testing.assert_close(divided.backbone[name], values)


def test_what_a_divided_job_holds_is_gone_before_the_next_part(tmp_path, monkeypatch):
    alive, most, job = weakref.WeakSet(), [], Trainer.job

    def made(self, cohort, round, received, broadcast, shared, *rest):
        if len(cohort) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        alive.add(shared)
        most.append(len(alive))
        return job(self, cohort, round, received, broadcast, shared, *rest)

    monkeypatch.setattr(Trainer, "job", made)
    run(tmp_path)
    assert len(most) > CLIENTS and max(most) <= 3


def test_who_does_not_fit_alone_fails_by_name(tmp_path, bounded):
    bounded(0)
    with pytest.raises(fedjoint.UserError, match="out of memory"):
        run(tmp_path)
