"""A model whose backbone is code of the run's own predicts with the code that made it."""

import numpy as np
import pytest
import torch

import fedjoint
from fedjoint.exports.export import export

PROBLEM = """
import numpy as np
import torch
from torch import nn

import fedjoint


class People:
    task_names = ("up",)
    sizes, tasks = np.full(3, 12), np.ones((3, 1), bool)

    def client(self, index):
        x = torch.randn(20, 4, generator=torch.Generator().manual_seed(index))
        examples = fedjoint.Examples(x, {"up": (x[:, 0] > 0).long()})
        return fedjoint.Client(*map(examples.take, torch.arange(20).split([12, 4, 4])))


class Curved(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layer = nn.Linear(features, 2)

    def forward(self, features):
        return self.layer(features).tanh()


def of(width, name="up"):
    data = People()
    data.task_names = (name,)
    backbone = lambda: nn.Sequential(nn.Linear(4, width), nn.ReLU())
    task = fedjoint.Task(name, "multiclass", 2, head=Curved)
    return fedjoint.Problem([task], backbone, data, torch.zeros(1, 4))


def people(config):
    return of(5)


def wider(config):
    return of(6)


def others(config):
    return of(5, "down")


def none(config):
    return None
"""


@pytest.fixture
def done(tmp_path):
    (tmp_path / "own.py").write_text(PROBLEM)
    settings = {"problem": f"{tmp_path / 'own.py'}:people", "rounds": 1, "engine": "inline"}
    run = fedjoint.simulate({**settings, "output": {"dir": str(tmp_path / "runs")}})
    exported = export(run.path, "up", client=1)
    exported.write(tmp_path / "out")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5, 4)))
    return exported


def test_predict_runs_the_code_that_is_named(done, tmp_path, command):
    status, printed, _ = command("predict", "out", "x.npy", "--problem", "own.py:people")
    assert status == 0
    with torch.no_grad():
        sure, best = done.model(torch.from_numpy(np.load("x.npy")).float()).softmax(1).max(1)
    header, *rows = (line.split(",") for line in printed.splitlines())
    assert header == ["up", "probability"] and [int(row[0]) for row in rows] == best.tolist()
    np.testing.assert_allclose([float(row[1]) for row in rows], sure, rtol=1e-5)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ([], "code of your own: say where by --problem, as in the run's settings, or"),
        (["own.py:wider"], "its tensors do not fit the problem that is given"),
        (["own.py:others"], "unknown task of the problem 'up': allowed are down"),
        (["own.py:none"], "must return a fedjoint.Problem"),
        (["gone.py:people"], "gone.py"),
    ],
)
def test_code_that_is_not_the_run_s_is_refused(done, tmp_path, command, problem, words):
    named = [part for name in problem for part in ("--problem", name)]
    status, _, errors = command("predict", "out", "x.npy", *named)
    assert status == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ") and words in line
