"""The program: bad input is one line and a non-zero exit; nothing is lost."""

import json
import subprocess
import sys

import pytest

from fedjoint import cli


@pytest.fixture
def fails(tmp_path, monkeypatch, capsys):
    """Run the program in ``tmp_path``, which ends with status 2; return its lines of errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["fedjoint", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        return capsys.readouterr().err.strip().splitlines()

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "digit"], ["unknown scenario 'digit'", "did you mean 'digits'"]),
        (["simulate", "none.toml"], ["none.toml"]),
        (
            ["simulate", "digits", "--set", "local.epoch=1"],
            ["local.epoch", "did you mean 'epochs'"],
        ),
        (["simulate", "digits", "--strategy", "fedavgg"], ["unknown strategy", "'fedavg'"]),
        (["simulate", "digits", "--set", "local.method=dito"], ["did you mean 'ditto'"]),
        (
            ["simulate", "digits", "--set", "local.method=prox"],
            ["local.options: ", "prox needs the option mu"],
        ),
        (
            ["simulate", "digits", "--set", "local.method=prox", "--set", "local.options.muu=1"],
            ["local.options: unknown option", "'muu'", "allowed are mu;", "did you mean 'mu'"],
        ),
        (
            ["simulate", "digits", "--set", "local.options.mu=1"],
            ["options belong to method"],
        ),
        (["simulate", "digits", "--clients", "0"], ["data.clients", "1"]),
        (["simulate", "digits", "--set", "local.optimiser.lr=-1"], ["local.optimiser.lr"]),
        (
            ["simulate", "digits", "--set", "local.steps=3", "--set", "local.epochs=1"],
            ["epochs or steps"],
        ),
        (["simulate", "digits", "--set", "local.optimiser.lr=inf"], ["local.optimiser.lr"]),
        (
            ["simulate", "digits", "--set", "balance.options.weights.digt=2"],
            ["did you mean 'digit'"],
        ),
        (
            ["simulate", "digits", "--set", "model.backbone=foo"],
            ["unknown backbone 'foo'", "mlp"],
        ),
        (
            ["simulate", "digits", "--set", "model.backbone=text"],
            ["does not take inputs of (64,) float32", "model.backbone"],
        ),
        (
            ["simulate", "digits", "--engine", "warp"],
            ["'warp'", "flower, inline, ray"],
        ),
        (["simulate", "digits", "--set", "rounds=true"], ["rounds", "switches"]),
        (["simulate", "digits", "--seed", str(2**63)], ["seed", "less than"]),
        (
            ["simulate", "digits", "--set", "data.source.options.path=5"],
            ["digits 'path': allowed are none"],
        ),
        (["simulate", "typing:Any"], ["scenario 'typing:Any'", "TypeError"]),
        (["simulate", "builtins:list"], ["scenario 'builtins:list' returns list", "dict"]),
        (["compare", "digits", "--set", "output.dir=/proc/none"], ["/proc/none", "output.dir"]),
        (["affinity", "conflict"], ["affinity needs three tasks or more, and there are 2"]),
        (
            ["affinity", "digits", "--set", "diagnostics.every=0"],
            ["diagnostics.every = 0: no round tells", "set it from 1 to 60"],
        ),
        (["resume", "nowhere"], ["nowhere", "run directory"]),
    ],
)
def test_one_clear_line(tmp_path, fails, arguments, words):
    if arguments[:2] == ["simulate", "digits"] and "--engine" not in arguments:
        arguments = [*arguments, "--engine", "inline"]  # Ray, which takes long, has one below
    lines = fails(*arguments)
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert not list(tmp_path.iterdir())


def test_one_clear_line_where_ray_is_started_meanwhile(fails):
    (line,) = fails("simulate", "digits", "--strategy", "fedavgg")
    assert line.startswith("error: unknown strategy")


def test_a_flag_into_what_is_no_table(tmp_path, fails):
    (tmp_path / "mine.toml").write_text("data = 3")
    lines = fails("simulate", "mine.toml", "--clients", "3")
    assert lines == ["error: mine.toml: data = 3: write it as a table"]


def test_simulate_and_plot(tmp_path):
    code = "from fedjoint.cli import main; main()"
    few = ["--engine", "inline", "--rounds", "2", "--clients", "6"]
    done = subprocess.run(
        [sys.executable, "-c", code, "simulate", "digits", *few],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    for name in ("config.json", "metrics.jsonl", "metrics.csv", "final/backbone.safetensors"):
        assert (folder / name).exists()
    cli.app(["plot", str(folder)], standalone_mode=False)
    assert (folder / "objective.png").exists()


FAILS = """
from fedjoint.training.method import LocalMethod

class Fails(LocalMethod):
    def train(self, job):
        if job.cohort.clients[0] == 2:
            raise OSError("disk on fire")
        raise IndexError("out of luck")
"""


def test_a_run_in_which_nobody_trains_is_no_success(tmp_path, fails):
    (tmp_path / "fails.py").write_text(FAILS)
    settings = ["rounds=2", "data.clients=3", "local.method=fails.py:Fails"]
    words = [word for setting in settings for word in ("--set", setting)]
    lines = fails("simulate", "digits", "--engine", "inline", *words)
    said = "error: a step of training fails: "
    assert said in lines[-1]
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert not (folder / "final").exists()


def test_help_says_what_the_commands_say():
    for name, (_, text) in cli.COMMANDS.items():
        assert cli.load_command(name).help.split("\n\n")[0].replace("\n", " ") == text


@pytest.mark.parametrize(
    ("commands", "heavy"),
    [
        (["status", "stop"], ["flwr"]),
        (["keys", "client", "nodes", "register", "revoke"], ["torch", "sqlalchemy"]),
        (["deploy"], ["sqlalchemy"]),
    ],
)
def test_operators_do_not_wait_for_what_servers_and_runs_need(commands, heavy):
    code = (
        "import sys\nfrom fedjoint.cli import load_command\n"
        f"for name in {commands}:\n    load_command(name)\n"
        f"assert not {set(heavy)} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['fedjoint', '--help']\n"
        "from fedjoint.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'flwr', 'ray', 'matplotlib', 'scipy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bench-strategies" in done.stdout
