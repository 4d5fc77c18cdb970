"""The engines: the same numbers, nothing private sent, kills survived."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict

from clients.app import make_app
from fedjoint.config.load import check
from fedjoint.engines.inline import InlineGrid
from fedjoint.engines.ray import workers
from fedjoint.errors import UserError
from fedjoint.problem import build_problem
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import resume, simulate


def config(tmp_path, **more):
    tree = {
        "rounds": 4,
        "data": {"clients": 7},
        "model": {"hidden": [16, 8]},
        "local": {"epochs": 1, "optimiser": {"lr": 0.05, "momentum": 0.5}},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path), "checkpoint_every": 2},
    }
    return check({**tree, **more})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_equals_inline_bit_for_bit(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("fedjoint.engines.ray._INLINE", 0)  # even a small backbone is shared
    inline = simulate(config(tmp_path))
    on_ray = simulate(config(tmp_path, engine={"name": "ray", "workers": workers}))
    assert same(inline.backbone, on_ray.backbone)
    assert inline.metrics == on_ray.metrics
    for client, state in inline.heads().items():
        assert same(state, on_ray.heads()[client])


OWN = """
import dataclasses
from fedjoint.problem import build_problem


class Own:
    def __init__(self, data):
        self.data, self.task_names, self.tasks = data, data.task_names, data.tasks
        self.sizes = data.sizes

    def client(self, index):
        return self.data.client(index)


def make(config):
    problem = build_problem(config.model_copy(update={"problem": None}))
    return dataclasses.replace(problem, data=Own(problem.data))
"""


@pytest.mark.slow
def test_a_problem_in_a_file_runs_on_ray(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = {"problem": f"{tmp_path / 'own.py'}:make"}
    inline = simulate(config(tmp_path, **own))
    on_ray = simulate(config(tmp_path, engine={"name": "ray", "workers": 2}, **own))
    assert same(inline.backbone, on_ray.backbone)


def test_a_problem_from_python_is_not_replaced_on_resume(tmp_path):
    made = config(tmp_path)
    path = simulate(made, build_problem(made)).path
    with pytest.raises(UserError, match="passed from Python"):
        resume(path)
    assert resume(path, build_problem(made)).records[-1].round == 4


@pytest.mark.slow
def test_summed_updates_equal_rows_to_tolerance(tmp_path):
    few = {"clients": 2}
    summed = simulate(config(tmp_path, diagnostics=few))
    rows = simulate(config(tmp_path))
    for name, tensor in rows.backbone.items():
        torch.testing.assert_close(summed.backbone[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedadam", "ditto"])
def test_resumed_equals_uninterrupted(tmp_path, strategy):
    settings = {"strategy": {"name": strategy, "fraction": 0.6}, "rounds": 6}
    whole = simulate(config(tmp_path, **settings))

    class Stop(Exception):
        pass

    def stop(record):
        if record.round == 5:
            raise Stop

    with pytest.raises(Stop):
        simulate(config(tmp_path / "cut", **settings), callbacks=[stop])
    (cut,) = (tmp_path / "cut").iterdir()
    resumed = resume(cut)
    assert same(whole.backbone, resumed.backbone)
    assert [r.round for r in resumed.records] == [1, 2, 3, 4, 5, 6]
    assert [r.objective for r in resumed.records] == [r.objective for r in whole.records]


@pytest.mark.slow
def test_a_kill_at_any_instant_leaves_a_resumable_run(tmp_path):
    settings = {"rounds": 60, "output": {"dir": str(tmp_path / "whole"), "checkpoint_every": 1}}
    whole = simulate(config(tmp_path, **settings))
    settings["output"]["dir"] = str(tmp_path / "cut")
    (tmp_path / "c.json").write_text(
        json.dumps(config(tmp_path, **settings).model_dump(mode="json"))
    )
    first = (
        "import json, fedjoint.simulation as s;"
        f"s.simulate(json.load(open({str(tmp_path / 'c.json')!r})))"
    )
    again = "import sys, fedjoint.simulation as s; s.resume(*sys.argv[1:])"

    def killed(after, code, *arguments):
        """Run ``code`` in a process that is killed once a round is written; return its run."""
        process = subprocess.Popen([sys.executable, "-c", code, *arguments])
        written = 0
        while written < after:
            assert process.poll() is None
            time.sleep(0.001)
            for metrics in (tmp_path / "cut").glob("*/metrics.jsonl"):
                written = metrics.read_bytes().count(b"\n")
        process.send_signal(signal.SIGKILL)
        process.wait()
        (cut,) = (tmp_path / "cut").iterdir()
        return cut

    cut = killed(5, first)
    killed(20, again, str(cut))
    resumed = resume(cut)
    assert same(whole.backbone, resumed.backbone)
    assert len(RunDir.open(cut).records()) == 60


class Spy(InlineGrid):
    """Keeps the name, shape and contents of every array that crosses the grid."""

    def __init__(self, *args):
        super().__init__(*args)
        self.sent: list[tuple[str, str, tuple[int, ...]]] = []
        self.contents: list[bytes] = []

    def look(self, message):
        for record, arrays in message.content.array_records.items():
            self.sent += [(record, name, array.numpy().shape) for name, array in arrays.items()]
            self.contents += [array.numpy().tobytes() for array in arrays.values()]
        return message

    def send_and_receive(self, messages, *, timeout=None):
        for reply in super().send_and_receive([self.look(m) for m in messages], timeout=timeout):
            yield self.look(reply)


@pytest.mark.parametrize("strategy", ["fedavg", "ditto", "apfl", "scaffold"])
def test_no_head_is_ever_sent(tmp_path, monkeypatch, strategy):
    grids = []

    def spying(*args):
        grids.append(Spy(*args))
        return grids[-1]

    monkeypatch.setattr("fedjoint.simulation.InlineGrid", spying)
    heads = simulate(config(tmp_path, strategy={"name": strategy})).heads()
    sent = grids[0].sent
    size = sum(t.numel() for t in simulate(config(tmp_path)).backbone.values())
    assert not [entry for entry in sent if "head" in entry[1] or "own" in entry[1]]
    wide = [
        shape for record, _, shape in sent if record in ("updates", "extras") and len(shape) > 1
    ]
    assert wide and all(shape[-1] == size for shape in wide)
    private = [
        tensor.numpy().tobytes()
        for state in heads.values()
        for name, tensor in state.items()
        if name.startswith(("heads.", "own.")) and tensor.numel() > 1
    ]
    assert len(private) >= 14  # weights of at least one head, and biases or more, of 7 clients
    assert not any(secret in content for content in grids[0].contents for secret in private)


def test_a_failing_client_is_named_and_the_rest_go_on(tmp_path):
    problem = build_problem(config(tmp_path))
    real = problem.data.client

    def client(index):
        if index == 3:
            raise OSError("disk on fire")
        return real(index)

    problem.data.client = client
    result = simulate(config(tmp_path, evaluate={"every": 4}), problem)
    failed = result.records[0].clients.failed
    assert [f.client for f in failed] == [3]
    assert "disk on fire" in failed[0].reason
    assert result.records[0].clients.trained == 6


def test_too_few_clients_keep_the_backbone(tmp_path):
    problem = build_problem(config(tmp_path))
    real = problem.data.client
    problem.data.client = lambda index: real(9 if index == 3 else index)  # there are seven
    result = simulate(config(tmp_path, strategy={"min_clients": 7}), problem)
    initial = build_problem(config(tmp_path)).model(config(tmp_path)).state_dict()
    assert all(torch.equal(t, initial[n]) for n, t in result.backbone.items())
    assert "min_clients" in result.records[0].kept


def test_more_clients_than_a_round_has_are_not_waited_for(tmp_path):
    few = {"min_clients": 7, "fraction": 0.5}
    with pytest.raises(UserError, match=r"min_clients is 7, but a round has 4 clients: lower it"):
        simulate(config(tmp_path, strategy=few))


PLUGIN = """
import torch
from fedjoint import JointStrategy

class MyMerge(JointStrategy):
    def __init__(self, scale: float = 0.5):
        super().__init__()
        self.scale = scale
    def merge(self, updates):
        return self.scale * updates.mean()

class Wrong(JointStrategy):
    def merge(self, updates):
        return updates.matrix

class Bad(JointStrategy):
    def merge(self, updates):
        return updates.mean() * float("nan")
"""


def test_a_strategy_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    name = f"{tmp_path / 'mine.py'}:MyMerge"
    half = simulate(config(tmp_path, rounds=1, strategy={"name": name}))
    full = simulate(config(tmp_path, rounds=1))
    start = build_problem(full.config).model(full.config).state_dict()
    for n, tensor in half.backbone.items():
        expected = start[n] + 0.5 * (full.backbone[n] - start[n])
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(
        UserError, match=r"unknown option of strategy .*'scal'.*did you mean 'scale'"
    ):
        simulate(config(tmp_path, strategy={"name": name, "options": {"scal": 1}}))


@pytest.mark.parametrize(("kind", "words"), [("Wrong", "merge returned"), ("Bad", "not finite")])
def test_a_bad_merge_is_reported_and_the_backbone_kept(tmp_path, kind, words):
    (tmp_path / "mine.py").write_text(PLUGIN)
    result = simulate(config(tmp_path, strategy={"name": f"{tmp_path / 'mine.py'}:{kind}"}))
    assert all(words in r.kept and kind in r.kept for r in result.records)
    initial = build_problem(result.config).model(result.config).state_dict()
    assert all(torch.equal(t, initial[n]) for n, t in result.backbone.items())


def test_gpu_shares_follow_what_ray_reports():
    engine = config(Path()).engine
    assert workers(engine, {"CPU": 8.0}) == (1.0, 0.0, 8)
    assert workers(engine, {"CPU": 8.0, "GPU": 2.0}) == (1.0, 1.0, 2)
    several = engine.model_copy(update={"workers_per_gpu": 3})
    cpus, gpus, count = workers(several, {"CPU": 8.0, "GPU": 2.0})
    assert (cpus, count) == (1.0, 6) and gpus == pytest.approx(1 / 3)
    with pytest.raises(UserError, match="gpus_per_worker"):
        workers(engine.model_copy(update={"gpus_per_worker": 1.0}), {"CPU": 2.0})


def test_a_message_of_another_version_is_refused():
    from flwr.app import ConfigRecord, Message

    from fedjoint.flower.identity import be_server, number

    be_server()
    content = RecordDict({"config": ConfigRecord({"schema": 0, "json": "{}"})})
    (message,) = number([Message(content, 1, "query")])
    context = Context(1, 1, {}, RecordDict(), {})
    with pytest.raises(UserError, match="install the same version"):
        make_app()(message, context)


def test_statistics_of_batch_norm_are_averaged_whatever_the_rule(tmp_path):
    model = {"backbone": "cnn", "hidden": [4, 8], "batch_norm": True}
    runs = [
        simulate(config(tmp_path, rounds=1, model=model, strategy={"name": "fedavg", "options": o}))
        for o in ({}, {"server_lr": 0.01})
    ]
    means, slow = (run.backbone for run in runs)
    statistics = [name for name in means if "running" in name]
    assert statistics and all(torch.equal(means[name], slow[name]) for name in statistics)
    assert any(not torch.equal(means[name], slow[name]) for name in means)
