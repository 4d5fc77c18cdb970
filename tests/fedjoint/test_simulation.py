"""What a run leaves; one that is stopped or killed goes on as if nothing had happened."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from support.folders import contents
from support.small import config
from support.tensors import same

from fedjoint import Client, Examples, Problem, Task
from fedjoint.errors import UserError
from fedjoint.problem import build_problem
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import resume, simulate


def test_a_result_has_the_last_evaluation_and_the_heads_of_all_who_trained(tmp_path):
    result = simulate(config(tmp_path, evaluate={"every": 3}, rounds=4))
    assert [record.evaluation is not None for record in result.records] == [False] * 2 + [True] * 2
    assert result.metrics == result.records[-1].evaluation
    data = build_problem(result.config).data
    for client, state in result.heads().items():
        own = {name.split(".")[1] for name in state if name.startswith("heads.")}
        assert own == set(np.array(data.task_names)[data.tasks[client]])
    assert sorted(result.heads()) == list(range(7))
    assert simulate(config(tmp_path, evaluate={"every": 9}, rounds=1)).records[-1].evaluation


def test_a_problem_from_python_is_not_replaced_on_resume(tmp_path):
    made = config(tmp_path)
    path = simulate(made, build_problem(made)).path
    with pytest.raises(UserError, match="passed from Python"):
        resume(path)
    assert resume(path, build_problem(made)).records[-1].round == 4


def rings(clients=4, classes=3, width=8, task="ring"):
    """Return a problem of a few clients, each with one task."""

    class Data:
        task_names = (task,)
        sizes, tasks = np.full(clients, 20), np.ones((clients, 1), bool)

        def client(self, index):
            x = torch.randn(30, 2, generator=torch.Generator().manual_seed(index))
            examples = Examples(x, {task: x.norm(dim=1).long().clamp(max=2)})
            return Client(*map(examples.take, torch.arange(30).split([20, 5, 5])))

    tasks = [Task(task, "multiclass", classes)]
    return Problem(tasks, lambda: torch.nn.Linear(2, width), Data(), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"width": 9}, "its backbone is not that of the model here"),
        ({"classes": 4}, "'heads.ring.bias' of client 0 is (3,), and (4,) in the model"),
        ({"clients": 6}, "the run has 4 clients, and the data here 6"),
        ({"clients": 3}, "the data of client 3 are not those"),
        ({"task": "circle"}, "the data of client 0 are not those"),
    ],
)
def test_a_run_goes_on_with_its_own_problem_alone(tmp_path, other, words):
    path = simulate(config(tmp_path, rounds=2), rings()).path
    before = contents(path)
    with pytest.raises(UserError, match=re.escape(words)) as error:
        resume(path, rings(**other), rounds=3)
    assert "\n" not in str(error.value) and contents(path) == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: simulate(c, {"tasks": []}), "the problem is a dict: give a fedjoint.Problem"),
        (lambda c: simulate(c, callbacks=len), "callbacks are a builtin_function_or_method"),
        (lambda c: simulate(c, callbacks=None), "callbacks are a NoneType: give a list"),
        (lambda c: simulate(c.model_copy(update={"name": "a\0"})), "cannot name a folder"),
        (lambda c: resume(None), "the run is a NoneType: give the path of its directory"),
        (lambda c: resume("run", rounds="5"), "rounds = '5': give a whole number"),
    ],
)
def test_an_argument_of_another_kind_is_one_line(tmp_path, call, words):
    with pytest.raises(UserError, match=re.escape(words)):
        call(config(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedadam", "ditto", "pcgrad"])
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


def test_a_run_goes_on_from_another_folder(tmp_path, monkeypatch):
    """Its data were named from the folder in which it was started."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows = [f"{number}.5,{number % 2}" for number in range(40)]
    (tmp_path / "here/rows.csv").write_text("\n".join(["x,kind", *rows]))
    options = {"path": ["rows.csv"], "targets": {"kind": "multiclass"}}
    data = {"source": {"name": "csv", "options": options}, "clients": 2, "partition": "iid"}
    path = simulate(config(tmp_path, rounds=1, data=data)).path
    monkeypatch.chdir(tmp_path)
    assert [record.round for record in resume(path, rounds=2).records] == [1, 2]


def test_a_reference_of_other_data_is_refused(tmp_path):
    alone = simulate(config(tmp_path, rounds=1, local={"method": "independent"}), rings()).path
    compared = config(tmp_path, rounds=1, local={}, diagnostics={"reference": str(alone)})
    assert simulate(compared, rings()).records[-1].round == 1
    with pytest.raises(UserError, match=r"diagnostics.reference: .*: the data of client 3 are not"):
        simulate(compared, rings(clients=3))


def test_settings_of_data_that_a_problem_makes_useless_are_said(tmp_path, caplog):
    data, output = {"clients": 3, "target_scale": {}}, {"dir": str(tmp_path)}
    settings = {"rounds": 1, "engine": "inline", "data": data, "output": output}
    simulate(settings, build_problem(config(tmp_path)))
    assert "the problem brings its own data: data.clients and the like" in caplog.text
