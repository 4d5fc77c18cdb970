"""Callbacks: what they hear, how they stop a run; the heartbeat goes on in a long round."""

import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.records import make_record

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.registry import load_object
from fedjoint.runs.directory import RunDir
from fedjoint.runs.record import Failure, Participation
from fedjoint.server import callbacks
from fedjoint.server.callbacks import GiveUp, Log, make_callbacks
from fedjoint.simulation import resume, simulate


def test_it_beats_until_the_end_whatever_a_beat_raises(monkeypatch, caplog):
    monkeypatch.setattr(callbacks, "EVERY", 0.001)
    thrice, beats = threading.Event(), []

    def beat():
        beats.append(threading.current_thread())
        if len(beats) == 2:
            raise OSError("disk full")
        if len(beats) >= 3:
            thrice.set()

    heart = callbacks.Heartbeat(beat)
    heart.on_run_begin(Config(), Path())
    assert beats[0] is threading.current_thread()
    assert thrice.wait(60)
    heart.on_run_end(None)
    assert "no sign of life: disk full" in caplog.text
    count = len(beats)
    heart.beat()
    assert len(beats) == count + 1 and beats[-1] is threading.current_thread()
    heart.beat(after=600)
    assert len(beats) == count + 1
    assert not any(thread.is_alive() for thread in set(beats[1:-1]))


SETTINGS = {
    "rounds": 4,
    "data": {"clients": 4, "examples_per_client": 30},
    "model": {"backbone": {"options": {"hidden": [4]}}},
    "engine": {"name": "inline"},
    "output": {"checkpoint_every": 3},
}


class Spy(callbacks.Callback):
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def on_run_begin(self, config, path):
        self.told.append(("begin", config.rounds, path.exists()))

    def after_round(self, record):
        self.told.append(("round", record.round))

    def on_checkpoint(self, checkpoint):
        self.told.append(("checkpoint", checkpoint.round, len(checkpoint.ledger.clients)))

    def on_run_end(self, error):
        self.told.append(("end", error and type(error).__name__))


def configure(tmp_path, **more):
    output = {"dir": str(tmp_path), **SETTINGS["output"]}
    return check({**SETTINGS, "output": output, **more})


def test_a_callback_hears_how_a_run_goes(tmp_path):
    spy = Spy()
    simulate(configure(tmp_path), callbacks=[spy])
    rounds = [("round", number) for number in (1, 2, 3, 4)]
    saved = [("checkpoint", number, 4) for number in (3, 4)]
    told = [("begin", 4, True), *rounds[:3], saved[0], rounds[3], saved[1], ("end", None)]
    assert spy.told == told


def test_a_callback_may_stop_a_run_which_can_go_on(tmp_path):
    result = simulate(configure(tmp_path), callbacks=[lambda record: record.round == 2])
    run = RunDir.open(result.path)
    assert [record.round for record in result.records] == [1, 2]
    assert run.info["status"] == "stopped" and run.latest().round == 2
    assert resume(result.path).records[-1].round == 4
    assert run.info["status"] == "done"
    whole = simulate(configure(tmp_path))
    for name, tensor in whole.backbone.items():
        assert torch.equal(run.final().backbone[name], tensor)


def test_a_callback_that_raises_ends_the_run(tmp_path):
    def broken(record):
        raise IndexError("out of luck")

    spy = Spy()
    with pytest.raises(IndexError):
        simulate(configure(tmp_path), callbacks=[broken, spy])
    assert spy.told == [("begin", 4, True), ("end", "IndexError")]
    (folder,) = tmp_path.iterdir()
    assert RunDir.open(folder).info["status"] == "failed"


def test_what_is_no_callback_is_one_line(tmp_path):
    with pytest.raises(UserError, match="callback 3: give a fedjoint"):
        simulate(configure(tmp_path), callbacks=[3])


def barren(round, reason="too hot", client=0):
    failed = (Failure(client, 1, reason),)
    clients = Participation(asked=1, trained=0, ids=(), failed=failed)
    return replace(make_record(round), clients=clients)


def test_a_run_in_which_nobody_trains_ends_with_the_reason():
    give_up = GiveUp(deployed=False)
    give_up.after_round(barren(1))
    give_up.after_round(barren(2))
    give_up.after_round(make_record(3))
    give_up.after_round(barren(4))
    give_up.after_round(barren(5))
    with pytest.raises(UserError, match=r"nobody trained in rounds 4 to 6; of 3 .* 3 say: too hot"):
        give_up.after_round(barren(6))


def test_nodes_that_may_come_back_are_waited_for():
    give_up = GiveUp(deployed=True)
    for round in range(1, 9):
        give_up.after_round(barren(round, client=None))


def test_many_failures_for_one_reason_are_one_line(caplog):
    failed = tuple(Failure(client, 1, "too hot", "west") for client in range(40))
    failed += (Failure(99, 1, "too cold", "west"),)
    clients = Participation(asked=41, trained=0, ids=(), failed=failed)
    log = Log()
    log.on_run_begin(Config(), Path())
    with caplog.at_level(logging.INFO):
        log.after_round(replace(make_record(1), clients=clients))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == [
        "round 1: client 0 (node west) and 39 others: too hot",
        "round 1: client 99 (node west): too cold",
    ]


OWN = """
import fedjoint

told = []


class Stop(fedjoint.Callback):
    def __init__(self, after: int):
        self.after = after

    def after_round(self, record):
        return record.round == self.after


def tell(record):
    told.append(record.round)
"""


def test_callbacks_that_the_configuration_names(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    file = f"{tmp_path}/own.py"
    named = [{"name": f"{file}:Stop", "options": {"after": 2}}, f"{file}:tell"]
    result = simulate(configure(tmp_path / "runs", callbacks=named))
    assert [record.round for record in result.records] == [1, 2]
    assert load_object(f"{file}:told") == [1, 2]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere", "unknown callback 'nowhere'"),
        ({"name": "own.py:Stop"}, "callback own.py:Stop needs the option after: a whole number"),
        ({"name": "own.py:tell", "options": {"a": 1}}, "is no class, so it has no options"),
        ("own.py:told", "give a fedjoint.Callback"),
    ],
)
def test_a_callback_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, named, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(UserError, match=said) as error:
        make_callbacks(check({"callbacks": [named]}).callbacks)
    assert "\n" not in str(error.value)


def _raise_stop(record):
    if record.round == 2:
        raise StopIteration


@pytest.mark.parametrize(
    ("stop", "rounds"),
    [
        (lambda record: record.round == 2, 2),
        (lambda record: np.bool_(record.round == 2), 2),
        (_raise_stop, 2),
        (lambda record: "no", 4),
        (lambda record: record.round, 4),
        (lambda record: None, 4),
    ],
)
def test_only_true_stops_a_run_and_it_ends_well(tmp_path, stop, rounds):
    result = simulate(configure(tmp_path), callbacks=[stop])
    run = RunDir.open(result.path)
    assert [record.round for record in result.records] == list(range(1, rounds + 1))
    assert run.status == ("done" if rounds == 4 else "stopped")
    assert run.latest().round == run.final().round == rounds


def test_what_a_callback_does_to_a_record_stays_there(tmp_path):
    def clear(record):
        record.loss.clear()
        record.evaluation["test"].clear()

    plain, cleared = simulate(configure(tmp_path)), simulate(configure(tmp_path), callbacks=[clear])
    assert [r.evaluation for r in cleared.records] == [r.evaluation for r in plain.records]
