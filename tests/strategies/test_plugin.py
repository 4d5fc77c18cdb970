"""Strategies of third parties: installed and found by name, in a file, and at fault."""

import os
import subprocess
import sys

import pytest
import torch

from fedjoint.cli import main
from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.runs.directory import RunDir
from fedjoint.runs.seal import read_sealed, write_sealed
from fedjoint.simulation import resume, simulate

STRATEGY = '''
"""Half of the mean."""

from fedjoint import JointStrategy


class Halfway(JointStrategy):
    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = scale

    def merge(self, updates):
        return self.scale * updates.mean()
'''

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "fedjoint-halfway"
version = "1.0"

[project.entry-points."fedjoint.strategies"]
halfway = "halfway:Halfway"

[tool.setuptools]
py-modules = ["halfway"]
"""

SETTINGS = ["rounds=2", "data.clients=6", "data.examples_per_client=40", "local.epochs=1"]
SETTINGS += ['data.task_mix=[["digit"], ["loop", "ink"]]']


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install a package with a strategy, without a network; return where to."""
    pytest.importorskip("setuptools")
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("target")
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "halfway.py").write_text(STRATEGY)
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--target", target]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run([*pip, *offline, project], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def fedjoint(cwd, *arguments, path=""):
    """Run the program in ``cwd``, with one more folder of installed packages."""
    code = "from fedjoint.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
    )


def simulated(cwd, strategy, path=""):
    """Run the program with a strategy; return its run directory."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    done = fedjoint(
        cwd,
        "simulate",
        "digits",
        "--strategy",
        strategy,
        "--engine",
        "inline",
        *settings,
        path=path,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (cwd / "runs").iterdir()
    return RunDir.open(folder)


def half_of_fedavg(folder):
    """Return the backbone that our own FedAvg makes with half the rate."""
    more = ["strategy.options.server_lr=0.5", f"output.dir={folder / 'ours'}"]
    config = scenario_config(
        "digits", [*SETTINGS, *more], engine__name="inline", strategy__name="fedavg"
    )
    return simulate(config).backbone


def check(run, strategy, folder):
    assert run.config().strategy.name == strategy
    records = run.records()
    assert [record.round for record in records] == [1, 2]
    assert all(record.kept is None for record in records)
    assert all(record.clients.trained == 6 for record in records)
    expected, found = half_of_fedavg(folder), run.final().backbone
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_installed_strategy_runs_by_name(tmp_path, installed):
    check(simulated(tmp_path, "halfway", installed), "halfway", tmp_path)


@pytest.mark.slow
def test_a_strategy_in_a_file_runs(tmp_path):
    (tmp_path / "mine.py").write_text(STRATEGY)
    check(simulated(tmp_path, "mine.py:Halfway"), f"{tmp_path / 'mine.py'}:Halfway", tmp_path)


METHOD = """
from fedjoint.training.method import LocalMethod

class Plain(LocalMethod):
    pass
"""


def test_a_run_with_files_of_one_s_own_is_resumed_from_anywhere(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(record):
        if record.round == 2:
            raise Stop

    (tmp_path / "mine.py").write_text(STRATEGY)
    (tmp_path / "plain.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    settings = [*SETTINGS, "output.checkpoint_every=1", "local.method=plain.py:Plain"]
    config = scenario_config(
        "digits", settings, engine__name="inline", strategy__name="mine.py:Halfway"
    )
    whole = simulate(config)
    with pytest.raises(Stop):
        simulate(config.model_copy(update={"name": "cut"}), callbacks=[stop])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (folder,) = (tmp_path / "runs").glob("cut-*")
    assert_same(resume(folder), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "halfwy"], ["unknown strategy 'halfwy'", "did you mean 'halfway'"]),
        (
            ["--strategy", "halfway", "--set", "strategy.options.scal=1"],
            ["unknown option of strategy halfway 'scal'", "did you mean 'scale'"],
        ),
    ],
)
def test_a_misspelt_name_of_an_installed_strategy(tmp_path, installed, arguments, words):
    done = fedjoint(tmp_path, "simulate", "digits", *arguments, path=installed)
    assert done.returncode == 2
    is_one_line(done.stderr, words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "mine.py:Halfwy"], ["'Halfwy'", "did you mean 'Halfway'"]),
        (["--strategy", "yours.py:Halfway"], ["yours.py: no such file"]),
        (["--strategy", "mine.py"], ["unknown strategy 'mine.py'"]),
        (["--strategy", "broken.py:Halfway"], ["broken.py", "line 1"]),
        (["--strategy", "json:dumps"], ["json:dumps"]),
        (
            ["--strategy", "mine.py:Halfway", "--set", "strategy.options.scal=1"],
            ["unknown option of strategy mine.py:Halfway 'scal'", "did you mean 'scale'"],
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "mine.py").write_text(STRATEGY)
    (tmp_path / "broken.py").write_text("class Halfway(:\n")
    monkeypatch.chdir(tmp_path)
    command = ["fedjoint", "simulate", "digits", "--engine", "inline", *arguments]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    is_one_line(capsys.readouterr().err, words)
    assert not (tmp_path / "runs").exists()


def is_one_line(error, words):
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line


FAULTY = """
import torch
from fedjoint import JointStrategy

class Faulty(JointStrategy):
    '''Takes the mean, but in round 2 what ``second`` says; counts the merges in its state.'''
    def __init__(self, second: str):
        super().__init__()
        self.second = second
    def merge(self, updates):
        self.state.setdefault("count", torch.zeros(1)).add_(1)
        mean = updates.mean()
        return getattr(self, self.second)(updates, mean) if updates.round == 2 else mean
    def zero(self, updates, mean):
        return torch.zeros_like(mean)
    def shape(self, updates, mean):
        return mean[:-1]
    def matrix(self, updates, mean):
        return updates.matrix
    def nothing(self, updates, mean):
        return None
    def undefined(self, updates, mean):
        return mean * float("nan")
    def huge(self, updates, mean):
        return mean.double() * 1e200
    def error(self, updates, mean):
        raise IndexError("out of luck")
    def scribble(self, updates, mean):
        updates.backbone.add_(1)
        updates.matrix.fill_(7)
        raise IndexError("out of luck")
    def overwrite(self, updates, mean):
        updates.matrix[0].mul_(2)
        return mean
    def reweigh(self, updates, mean):
        updates.weights.fill_(1)
        return mean
    def poison(self, updates, mean):
        self.state["count"].mul_(float("nan"))
        return mean
    def number(self, updates, mean):
        self.state["count"] = 1
        return mean
    def double(self, updates, mean):
        return mean.double() * 0
    def differentiable(self, updates, mean):
        return torch.zeros_like(mean).requires_grad_()
"""


IDLE = """
from fedjoint.training.method import LocalMethod

class Idle(LocalMethod):
    def train(self, job):
        return {} if job.round == 2 else super().train(job)
"""


def faulty(folder, second, *more):
    (folder / "faulty.py").write_text(FAULTY)
    settings = [*SETTINGS, *more, "rounds=3", "data.clients=4", f"output.dir={folder / second}"]
    config = scenario_config(
        "digits",
        [*settings, f"strategy.options.second={second}", "output.checkpoint_every=1"],
        engine__name="inline",
        strategy__name=f"{folder / 'faulty.py'}:Faulty",
    )
    return simulate(config)


@pytest.fixture(scope="module")
def skipped(tmp_path_factory):
    """A run whose backbone stays where it is in round 2, while heads are trained."""
    return faulty(tmp_path_factory.mktemp("skipped"), "zero")


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A run in which nobody does anything in round 2."""
    folder = tmp_path_factory.mktemp("idle")
    (folder / "idle.py").write_text(IDLE)
    return faulty(folder, "zero", f"local.method={folder / 'idle.py'}:Idle")


def assert_same(result, expected):
    for name, tensor in expected.backbone.items():
        assert torch.equal(result.backbone[name], tensor), name


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("shape", "merge returned ("),
        ("matrix", "merge returned (4, "),
        ("nothing", "merge returned NoneType"),
        ("undefined", "merge returned a step that is not finite"),
        ("huge", "merge returned a step that is not finite"),
        ("error", "out of luck"),
        ("scribble", "out of luck"),
        ("overwrite", "merge changed updates.matrix in place"),
        ("reweigh", "merge changed updates.weights in place"),
        ("poison", "state['count'] is not finite"),
        ("number", "state['count'] is int"),
    ],
)
def test_a_faulty_merge_keeps_the_backbone_and_the_run_goes_on(tmp_path, idle, second, words):
    result = faulty(tmp_path, second)
    first, kept, third = (record.kept for record in result.records)
    assert first is None and third is None
    assert kept.startswith("Faulty: ") and words in kept and "\n" not in kept
    assert_same(result, idle)
    # The state is that of before, too.
    assert RunDir(result.path).latest().state["count"].tolist() == [2]
    assert RunDir(idle.path).latest().state["count"].tolist() == [3]


@pytest.mark.parametrize("second", ["double", "differentiable"])
def test_a_step_of_another_type_is_taken(tmp_path, skipped, second):
    result = faulty(tmp_path, second)
    assert [record.kept for record in result.records] == [None, None, None]
    assert_same(result, skipped)
    assert not any(tensor.requires_grad for tensor in result.backbone.values())


MOMENTUM = """
import torch
from fedjoint import JointStrategy

class Momentum(JointStrategy):
    def merge(self, updates):
        momentum = self.state.setdefault("momentum", torch.zeros_like(updates.backbone))
        momentum.mul_(0.9).add_(updates.mean())
        if updates.round == 2:
            momentum.mul_(float("nan"))
        return momentum.clone()
"""


def test_a_state_that_is_changed_in_place_is_rolled_back(tmp_path):
    (tmp_path / "momentum.py").write_text(MOMENTUM)
    config = scenario_config(
        "digits",
        [*SETTINGS, "rounds=3", f"output.dir={tmp_path}", "output.checkpoint_every=1"],
        engine__name="inline",
        strategy__name=f"{tmp_path / 'momentum.py'}:Momentum",
    )
    backbones = []

    def keep(record):
        (folder,) = tmp_path.glob("digits-*")
        backbones.append(RunDir(folder).latest())

    result = simulate(config, callbacks=[keep])
    first, kept, third = (record.kept for record in result.records)
    assert (first, third) == (None, None) and "not finite" in kept
    # What round 3 added to the momentum of round 1 is a mean of updates: finite, and no more.
    momentum = RunDir(result.path).latest().state["momentum"]
    before = backbones[-1].backbone
    step = torch.cat([(t - before[n]).flatten() for n, t in result.backbone.items()])
    torch.testing.assert_close(step, momentum, rtol=1e-3, atol=1e-6)
    assert momentum.isfinite().all()


COUNTS = """
from fedjoint.strategies.fedavg import FedAvg

class Counts(FedAvg):
    def __init__(self):
        super().__init__()
        self.state["count"] = 0
"""


def test_a_state_that_is_no_tensor_from_the_first_is_reported(tmp_path):
    (tmp_path / "counts.py").write_text(COUNTS)
    config = scenario_config(
        "digits",
        [*SETTINGS, f"output.dir={tmp_path}"],
        engine__name="inline",
        strategy__name=f"{tmp_path / 'counts.py'}:Counts",
    )
    with pytest.raises(UserError) as error:
        simulate(config)
    assert str(error.value) == "strategy Counts: state['count'] is int, not a tensor"


BROADCAST = """
import torch
from fedjoint.strategies.fedavg import FedAvg

class Broadcast(FedAvg):
    # Sends nothing at first, from round 2 on what ``second`` says.
    def __init__(self, second: str):
        super().__init__()
        self.second = second
    def broadcast(self, backbone):
        if "merges" in self.state:
            return getattr(self, self.second)(backbone)
        backbone.fill_(float("nan"))
        return {}
    def merge(self, updates):
        self.state["merges"] = torch.ones(1)
        return super().merge(updates)
    def error(self, backbone):
        raise IndexError("out of luck")
    def nothing(self, backbone):
        return None
    def number(self, backbone):
        return {"rate": 1}
    def undefined(self, backbone):
        return {"rate": torch.ones(1) / 0}
    def fixed(self, backbone):
        return {}
"""


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("error", "out of luck"),
        ("nothing", "it returned NoneType, not a dict of tensors"),
        ("number", "what it returned['rate'] is int, not a tensor"),
        ("undefined", "what it returned['rate'] is not finite"),
    ],
)
def test_a_faulty_broadcast_ends_a_run_that_can_be_resumed(tmp_path, second, words):
    def run(second, rounds):
        config = scenario_config(
            "digits",
            [
                *SETTINGS,
                f"rounds={rounds}",
                "evaluate.every=5",
                f"output.dir={tmp_path / second}",
                "output.checkpoint_every=1",
                f"strategy.options.second={second}",
            ],
            engine__name="inline",
            strategy__name=f"{tmp_path / 'sends.py'}:Broadcast",
        )
        return simulate(config)

    (tmp_path / "sends.py").write_text(BROADCAST)
    with pytest.raises(UserError) as error:
        run(second, 3)
    assert str(error.value) == f"round 2: Broadcast.broadcast: {words}"
    (folder,) = (tmp_path / second).iterdir()
    assert RunDir(folder).info["status"] == "failed"
    assert [record.round for record in RunDir(folder).records()] == [1]
    # The plug-in is fixed, and the run goes on.
    tree = read_sealed(folder / "config.json")
    tree["strategy"]["options"]["second"] = "fixed"
    write_sealed(folder / "config.json", tree.pop("run"), tree)
    found, expected = resume(folder), run("fixed", 3)
    assert_same(found, expected)
