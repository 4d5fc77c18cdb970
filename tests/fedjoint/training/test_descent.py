"""Clients that descend in steps which write no gradients down."""

import numpy as np
import pytest
import torch
from support import small

from fedjoint.config.load import check
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate
from fedjoint.training.descent import Descent
from fedjoint.training.method import LocalMethod
from fedjoint.training.trainer import Trainer

CLIENTS = np.arange(6)


def make(tasks=("digit", "ink"), hidden=(9, 7), **local):
    config = check(
        {
            "data": {
                "clients": len(CLIENTS),
                "partition": "quantity",
                "examples_per_client": 60,
                "alpha": 0.4,
                "task_mix": [list(tasks)],
            },
            "model": {"backbone": {"options": {"hidden": list(hidden)}}},
            "local": {"batch_size": 8, "epochs": 2, **local},
        }
    )
    return Trainer(build_problem(config), config, torch.device("cpu"))


def train(trainer, ids, plain=False):
    """Train ``ids`` in one chunk; return the job, and the fused steps that it took."""
    received = trainer.layout.flat(trainer.model.state_dict())
    cohort = trainer.cohort(ids, ids)
    fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
    private = {n: torch.stack([t] * len(ids)) for n, t in fresh.items()}
    job = trainer.job(cohort, 1, received, {}, received.expand(len(ids), -1).clone(), private)
    if plain:
        job.descent = None
    else:
        assert job.descent is not None
    LocalMethod().train(job)
    return job


RULES = {
    "plain": {"lr": 0.1},
    "decay": {"lr": 0.1, "weight_decay": 0.1},
    "momentum": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
}


@pytest.mark.parametrize("rule", RULES)
def test_it_equals_steps_that_write_gradients_down(rule):
    trainer = make(optimiser=RULES[rule])
    ours, plain = train(trainer, CLIENTS), train(trainer, CLIENTS, plain=True)
    assert len(set(ours.steps.tolist())) > 2, "clients should take different numbers of steps"
    assert ours.steps.tolist() == plain.steps.tolist() == ours.work.tolist()
    torch.testing.assert_close(ours.shared, plain.shared, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.losses, plain.losses, rtol=1e-4, atol=1e-6)
    for name, tensor in ours.private.items():
        torch.testing.assert_close(tensor, plain.private[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_client_gets_the_same_bits_in_any_chunk(rule):
    # Products of other shapes may depend on where a matrix begins, by a last bit.
    trainer = make(["digit"], [16, 32], optimiser=RULES[rule])
    together = train(trainer, CLIENTS)
    for part in ([2], [5, 0], [1, 2, 3], [4, 3, 2, 1, 0]):
        some = train(trainer, np.array(part))
        assert torch.equal(some.shared, together.shared[part])
        assert torch.equal(some.losses, together.losses[part])
        for name, tensor in some.private.items():
            assert torch.equal(tensor, together.private[name][part])


@pytest.mark.parametrize(
    "local",
    [{"optimiser": {"name": "adam"}}, {"lr_scales": [1.0, 0.5]}],
    ids=["adam", "rates of their own"],
)
def test_what_it_cannot_do_is_left_to_others(local):
    trainer = make(**local)
    received = trainer.layout.flat(trainer.model.state_dict())
    ids = CLIENTS[:1]
    fresh = trainer.fresh(trainer.cohort(ids, ids).tasks, LocalMethod(), received)
    private = {n: t[None].clone() for n, t in fresh.items()}
    job = trainer.job(trainer.cohort(ids, ids), 1, received, {}, received[None].clone(), private)
    assert job.descent is None


def test_what_the_rehearsal_has_traced_serves_the_run(tmp_path, monkeypatch):
    trace, traced = Descent._trace, []

    def counted(self, inputs, tensors):
        traced.append(self)
        return trace(self, inputs, tensors)

    monkeypatch.setattr(Descent, "_trace", counted)
    mix = [["digit"], ["loop", "ink"]]
    apart = {"local": {"pack": 1}}  # which a client of each set is tried in
    simulate(small.config(tmp_path, rounds=1, data={"clients": 7, "task_mix": mix}, **apart))
    assert len(traced) == len(set(traced)) == len(mix)
