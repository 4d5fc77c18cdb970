"""The best round by validation is kept beside the last; a run goes on for more rounds."""

import shutil

import pytest
import torch
from support import small

import fedjoint
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.runs.directory import RunDir
from fedjoint.server.best import Best
from fedjoint.simulation import resume, simulate

TASKS = [Task("up", "regression", 1), Task("down", "regression", 1, metric="rmse")]


def evaluation(up, down):
    return {"valid": {"up": up, "down": down}}


def test_what_should_rise_and_what_should_fall_count_alike():
    best = Best()
    # The mean of R2 and of minus the share of the first RMSE: -0.5, -0.55, -0.2, none, -0.25.
    rounds = [(0.0, 4.0), (0.1, 4.8), (0.2, 2.4), (None, 0.0), (0.0, 2.0)]
    assert [best.beaten(evaluation(*r), TASKS) for r in rounds] == [True, False, True, False, False]
    assert best.score == pytest.approx(-0.2)


def best_by_hand(result, tasks):
    """Return the best round of a run of metrics that should rise."""
    mean = {r.round: sum(r.evaluation["valid"][t] for t in tasks) for r in result.records}
    return max(mean, key=lambda round: (mean[round], round))


#: Rates so high that later rounds are worse than earlier ones.
HOT = {"local": {"epochs": 2, "optimiser": {"lr": 0.2, "momentum": 0.5}}, "rounds": 6}


def kept(tmp_path, **more):
    output = {"dir": str(tmp_path), "checkpoint_every": 4, "keep_best": True}
    return small.config(tmp_path, output=output, **{**HOT, **more})


def snapshots(config):
    taken = {}

    def take(record, snapshot):
        taken[record.round] = snapshot.backbone()

    return simulate(config, callbacks=[take]), taken


def test_the_models_of_the_best_round_are_kept_with_the_clients_own_parts(tmp_path):
    result, taken = snapshots(kept(tmp_path))
    tasks = list(result.metrics["valid"])
    number = best_by_hand(result, tasks)
    assert result.best.round == number < 6  # else nothing is shown
    for name, tensor in taken[number].items():
        assert torch.equal(result.best.backbone[name], tensor)
    # A run that ends there has the same models.
    short = simulate(kept(tmp_path / "short", rounds=number))
    for task in tasks:
        mine = fedjoint.export(result.path, task, best=True)
        theirs = fedjoint.export(short.path, task)
        assert mine.card.origin.round == number
        for name, tensor in theirs.model.state_dict().items():
            assert torch.equal(mine.model.state_dict()[name], tensor)
        client = mine.card.origin.clients[0]
        one = fedjoint.export(result.path, task, client=client, best=True)
        other = fedjoint.export(short.path, task, client=client)
        assert torch.equal(one.model(one.example), other.model(other.example))


def test_a_run_that_was_stopped_keeps_the_same_best_round(tmp_path):
    whole = simulate(kept(tmp_path / "whole"))
    for stop in (1, 3, 5):
        part = simulate(kept(tmp_path / str(stop)), callbacks=[lambda r, at=stop: r.round == at])
        again = resume(part.path)
        assert again.best.round == whole.best.round
        for name, tensor in whole.best.backbone.items():
            assert torch.equal(again.best.backbone[name], tensor)
        fedjoint.export(again.path, next(iter(whole.metrics["valid"])), best=True)


def test_a_best_round_that_is_missing_is_refused_by_name(tmp_path):
    result = simulate(kept(tmp_path))
    shutil.rmtree(result.path / "best")
    for command in (resume, lambda path: fedjoint.export(path, "digit", best=True)):
        with pytest.raises(UserError, match=r"best/backbone\.safetensors: it is missing"):
            command(result.path)
    plain = simulate(small.config(tmp_path))
    assert plain.best is None
    with pytest.raises(UserError, match="no best round is kept"):
        fedjoint.export(plain.path, "digit", best=True)


@pytest.mark.parametrize("stopped", [False, True])
def test_more_rounds_are_those_of_a_longer_run(tmp_path, stopped):
    whole = simulate(small.config(tmp_path / "whole", rounds=6))
    stop = [lambda record: record.round == 2] if stopped else []
    part = simulate(small.config(tmp_path / "part", rounds=3), callbacks=stop)
    more = resume(part.path, rounds=6)
    assert [record.round for record in more.records] == [1, 2, 3, 4, 5, 6]
    assert RunDir.open(part.path).status == "done" and more.config.rounds == 6
    for name, tensor in whole.backbone.items():
        assert torch.equal(more.backbone[name], tensor)
    assert more.records[-1].test == whole.records[-1].test
    assert len(resume(part.path).records) == 6  # done is done


@pytest.mark.parametrize(
    ("rounds", "says"), [(3, "rounds = 3, and 4 are done"), (4, "4 are done"), (0, "4 are done")]
)
def test_fewer_rounds_are_refused_and_nothing_is_written(tmp_path, rounds, says):
    path = simulate(small.config(tmp_path)).path
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=says):
        resume(path, rounds=rounds)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_more_rounds_need_the_last_checkpoint(tmp_path):
    path = simulate(small.config(tmp_path)).path
    shutil.rmtree(path / "checkpoints")
    with pytest.raises(UserError, match="the checkpoint of round 4, from which further rounds go"):
        resume(path, rounds=9)
