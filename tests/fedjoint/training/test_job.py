"""What a local method may ask of its job, on clients of different sizes."""

import numpy as np
import pytest
import torch

import fedjoint
from fedjoint.config.load import check
from fedjoint.data.base import Client, Examples
from fedjoint.errors import UserError
from fedjoint.problem import Problem
from fedjoint.simulation import simulate
from fedjoint.training.trainer import Trainer

SIZES = np.array([5, 12, 20])


class Uneven:
    task_names = ("a",)
    sizes, tasks = SIZES, np.ones((3, 1), bool)

    def client(self, index):
        x = torch.randn(int(SIZES[index]), 4, generator=torch.Generator().manual_seed(index))
        examples = Examples(x, {"a": x[:, :1].clone()})
        return Client(examples, examples, examples)


def problem():
    tasks = [fedjoint.Task("a", "regression", 1)]
    return Problem(tasks, lambda: torch.nn.Linear(4, 3), Uneven(), torch.zeros(1, 4))


def make_job(clients=(0, 1, 2), **local):
    config = check({"local": {"batch_size": 4, **local}})
    trainer = Trainer(problem(), config, torch.device("cpu"))
    ids = np.array(clients)
    cohort = trainer.cohort(ids, ids)
    received = trainer.layout.flat(trainer.model.state_dict())
    fresh = trainer.fresh(cohort.tasks, fedjoint.LocalMethod(), received)
    private = {name: torch.stack([tensor] * len(ids)) for name, tensor in fresh.items()}
    return trainer.job(cohort, 1, received, {}, received.expand(len(ids), -1).clone(), private)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_descend_takes_epochs_of_its_own(epochs):
    job = make_job(steps=3)
    job.descend(epochs=epochs)
    assert job.steps.tolist() == (epochs * np.ceil(SIZES / 4)).tolist()


def test_steps_and_epochs_are_two_budgets():
    with pytest.raises(UserError, match="not both"):
        make_job().descend(steps=1, epochs=1)


def test_a_correction_is_told_who_takes_the_step():
    job, told = make_job(epochs=1), []
    job.descend(correct=lambda gradients, parameters, active: told.append(active))
    turns = [[True] * 3 if active is None else active.tolist() for active in told]
    assert turns == [[step * 4 < size for size in SIZES] for step in range(5)]


def test_a_client_without_a_whole_minibatch_is_told_so():
    with pytest.raises(UserError, match=r"it has 5 training examples.*local.batch_size = 8"):
        make_job(batch_size=8, drop_last=True).descend()
    job = make_job(clients=(1, 2), batch_size=8, drop_last=True)
    job.descend()
    assert job.steps.tolist() == [1, 2]
    with pytest.raises(UserError, match="leave out drop_last"):
        check({"local": {"steps": 2, "drop_last": True}})


def test_only_that_client_fails(tmp_path):
    tree = {"rounds": 1, "engine": "inline", "output": {"dir": str(tmp_path)}}
    local = {"batch_size": 8, "drop_last": True}
    (record,) = simulate(tree | {"local": local}, problem()).records
    assert [failure.client for failure in record.clients.failed] == [0]
    assert record.clients.ids == (1, 2)
