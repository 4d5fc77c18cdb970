"""Clients of several sets of tasks that form one job train as they do alone."""

import itertools

import numpy as np
import pytest
import torch

import fedjoint
from fedjoint.node.jobs import Jobs
from fedjoint.node.private import PrivateState

MIX = [["digit"], ["ink", "digit"], ["parity", "centroid"], ["ink"]]

SETTINGS = {
    "rows": {},
    "means, few of whom are compared": {"diagnostics": {"clients": 2}},
    "Adam": {"local": {"optimiser": {"name": "adam", "lr": 0.01}}},
    "a rate for each client": {"local": {"lr_scales": [1.0, 0.5, 2.0]}},
    "weights of tasks": {"balance": {"options": {"weights": {"ink": 3.0}}}},
    "decay": {"local": {"optimiser": {"weight_decay": 0.1}}},
    "Krum": {"strategy": {"name": "krum", "options": {"malicious": 1}}},
}


def run(tmp_path, monkeypatch, pack, local=(), **more):
    """Return a run's result, and the clients of each of its jobs that trained."""
    jobs, job = [], Jobs.job

    def noted(self, members, start, *, train=False):
        jobs.extend([members.ids.tolist()] * train)
        return job(self, members, start, train=train)

    tree = {
        "rounds": 3,
        "data": {"source": {"name": "digits"}, "clients": 12, "task_mix": MIX},
        "model": {"backbone": {"name": "mlp", "options": {"hidden": [16]}}},
        "local": {"epochs": 1, **dict(local), "pack": pack},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path / str(pack))},
        "diagnostics": {"every": 2, "within_every": 2},
        **more,
    }
    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "job", noted)
        return fedjoint.simulate(tree), jobs


def numbers(tree):
    """Yield all numbers in a tree of dicts, with where they are."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{n}", v) for n, v in numbers(value))
        elif isinstance(value, float):
            yield name, value


@pytest.mark.parametrize("what", SETTINGS)
def test_a_packed_run_is_that_of_jobs_of_one_set_of_tasks(what, tmp_path, monkeypatch):
    apart, several = run(tmp_path, monkeypatch, 1, **SETTINGS[what])
    packed, one = run(tmp_path, monkeypatch, 32, **SETTINGS[what])
    assert len(one) == 3 and len(several) > 3 * 3
    assert sorted(itertools.chain(*one)) == sorted(itertools.chain(*several))
    for name, tensor in apart.backbone.items():
        torch.testing.assert_close(packed.backbone[name], tensor, rtol=1e-4, atol=1e-5)
    heads, expected = packed.heads(), apart.heads()
    assert heads.keys() == expected.keys()
    for client, own in expected.items():
        assert heads[client].keys() == own.keys()  # and none of tasks that it lacks
        for name, tensor in own.items():
            torch.testing.assert_close(heads[client][name], tensor, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(packed.records, apart.records, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-4, nan_ok=True)
        found = dict(numbers({"test": mine.evaluation, "of": mine.diagnostics or {}}))
        known = dict(numbers({"test": theirs.evaluation, "of": theirs.diagnostics or {}}))
        assert found == pytest.approx(known, rel=1e-3, abs=1e-4, nan_ok=True)


class People:
    """Six clients, of each two sets of tasks; client 4 may have labels that are no classes."""

    task_names = ("sign", "size")
    sizes = np.full(6, 8)
    tasks = np.array([[True, False], [True, True], [False, True]] * 2)

    def __init__(self, bad=()):
        self.bad = bad

    def client(self, index):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(index))
        y = {"sign": (x[:, 0] > 0).long() + 5 * (index in self.bad), "size": x[:, 1:2]}
        has = zip(self.task_names, self.tasks[index], strict=True)
        examples = fedjoint.Examples(x, {name: y[name] for name, own in has if own})
        return fedjoint.Client(examples, examples, examples)


def known_and_above(output, y):
    return torch.stack([y >= 0, y > 0], 1).double()


def share(statistics):
    """Return which share of the labels is above zero; of none, Python divides by zero."""
    count, above = statistics.tolist()
    return above / count


SHARE = fedjoint.Metric("share", known_and_above, share)


def simulate(tmp_path, pack, people, metric=None, head=None, **more):
    tasks = [
        fedjoint.Task("sign", "multiclass", 2, metric=metric),
        fedjoint.Task("size", "regression", 1, head=head),
    ]
    problem = fedjoint.Problem(
        tasks, lambda: torch.nn.Linear(3, 4), people, torch.zeros(1, 3), **more
    )
    output = {"dir": str(tmp_path / str(pack))}
    tree = {"rounds": 2, "engine": {"name": "inline"}, "output": output, "local": {"pack": pack}}
    return fedjoint.simulate(tree, problem)


def test_a_metric_is_of_those_that_have_its_task(tmp_path):
    packed, apart = (simulate(tmp_path, pack, People(), SHARE) for pack in (32, 1))
    for mine, theirs in zip(packed.records, apart.records, strict=True):
        assert mine.evaluation["test"] == pytest.approx(theirs.evaluation["test"])
        assert mine.spread["sign"]["clients"] == theirs.spread["sign"]["clients"] == 4


def test_all_are_measured_on_central_examples_of_their_own_tasks(tmp_path):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(9))
    labels = {"sign": (x[:, 0] > 0).long(), "size": x[:, 1:2], "other": x[:, 2:]}
    central = fedjoint.Examples(x, labels)
    packed, apart = (simulate(tmp_path, pack, People(), central=central) for pack in (32, 1))
    found, known = (run.metrics["central"] for run in (packed, apart))
    assert found == pytest.approx(known, rel=1e-4) and found.keys() == {"sign", "size"}


def test_what_a_client_keeps_holds_nothing_of_the_others(tmp_path, monkeypatch):
    kept = []
    put = PrivateState.put

    def noted(self, clients, counts, round, stacked):
        kept.extend(stacked.values())
        put(self, clients, counts, round, stacked)

    monkeypatch.setattr(PrivateState, "put", noted)
    simulate(tmp_path, 32, People())
    assert kept
    for tensor in kept:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_of_a_packed_job_only_the_client_whose_data_are_bad_fails(tmp_path):
    result = simulate(tmp_path, 32, People(bad={4}))
    for record in result.records:
        (failure,) = record.clients.failed
        assert failure.client == 4 and "class" in failure.reason
        assert record.clients.trained == 5
    assert result.heads().keys() == {0, 1, 2, 3, 5}


class Brittle(torch.nn.Module):
    """A head that has no value where its output would be below zero."""

    def __init__(self, features):
        super().__init__()
        self.last = torch.nn.Linear(features, 1)

    def forward(self, x):
        return self.last(x).log()


def test_a_head_that_a_client_lacks_cannot_fail_it(tmp_path):
    result = simulate(tmp_path, 32, People(), head=Brittle)
    assert result.records[-1].clients.trained == 2  # of sign alone
    assert result.heads().keys() == {0, 3}


def test_how_many_are_packed_follows_from_the_model_and_is_kept(tmp_path, monkeypatch):
    small, jobs = run(tmp_path, monkeypatch, 0)
    assert small.config.local.pack == 32 and len(jobs) == 3
    large, jobs = run(
        tmp_path,
        monkeypatch,
        0,
        local={"batch_size": 64},
        rounds=1,
        model={"backbone": {"name": "mlp", "options": {"hidden": [512, 512]}}},
    )
    assert large.config.local.pack == 1 and len(jobs) >= len(MIX)
