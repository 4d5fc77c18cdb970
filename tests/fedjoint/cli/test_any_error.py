"""Whatever happens at the command line is one line, and the exit status is true."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedjoint import cli
from fedjoint.errors import UserError, one_line

DEEP = "[" * 20_000
DOTTED = ".".join("a" * 3000)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(
        'rounds = 1\nengine = "inline"\n[data]\nclients = 2\nsource = "synthetic"\n'
        "examples_per_client = 20\n[model.backbone.options]\nhidden = [4]\n"
    )
    (tmp_path / "deep.toml").write_text(f"a = {DEEP}")
    (tmp_path / "dotted.toml").write_text(f"{DOTTED} = 1")
    (tmp_path / "giant.toml").write_text(f"rounds = {'9' * 5000}")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
    (tmp_path / "p.py").write_text(
        "import sys\nimport fedjoint\n\n\ndef leave(*a, **k):\n    sys.exit(0)\n\n\n"
        "def fail(*a, **k):\n    raise KeyError('k\\n\\x1b[2J')\n\n\nclass Empty:\n    pass\n"
    )
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    return tmp_path


def setting(text):
    return ["simulate", "tiny.toml", "--set", text]


#: what is asked, what is said
CASES = [
    (["simulate", "deep.toml"], "deep.toml: not valid TOML"),
    (["simulate", "dotted.toml"], "dotted.toml: more than 50 tables within one another"),
    (setting(f"data.source.options.{DOTTED}=1"), "more than 50 tables within one another"),
    (["simulate", "giant.toml"], "giant.toml: not valid TOML"),
    (["simulate", "latin.toml"], "latin.toml: not valid TOML"),
    (["simulate", "x" * 5000], "File name too long"),
    (setting(f"rounds={DEEP}"), "rounds: Input should be a valid integer"),
    (setting(f"rounds={'9' * 5000}"), "rounds: "),
    (setting("name=a\tb"), "name: it has a character that is not printable"),
    (setting('name="a\\u0000"'), "name: it has a character that is not printable"),
    (setting('output.dir="a\\u0000"'), "output.dir: it has a character that is not printable"),
    (setting("rounds=1\nseed=2"), "write it in one line"),
    (setting(f"name={'y' * 300}"), "cannot name a folder"),
    (setting(f"{'k' * 5000}=1"), "unknown key"),
    (setting("strategy=p.py:leave"), "a function is no fedjoint.JointStrategy"),
    (setting("strategy=p.py:fail"), "strategy p.py:fail: a function is no"),
    (setting("strategy=p.py:Empty"), "p.py:Empty"),
    (setting("strategy=exits.py:Any"), "cannot import exits.py: it calls sys.exit(0)"),
    (setting("strategy=builtins:exit"), "builtins:exit"),
    (setting("strategy=builtins:dict"), "builtins:dict"),
    (setting("strategy=os:path"), "os:path"),
    (setting("problem=p.py:leave"), "p.py:leave': it calls sys.exit(0)"),
    (setting("problem=p.py:fail"), "p.py:fail': KeyError"),
    (setting("problem=os:getcwd"), "problem = 'os:getcwd': TypeError"),
    (["simulate", "p.py:leave"], "scenario 'p.py:leave': it calls sys.exit(0)"),
    (["deploy", "nowhere.toml"], "nowhere.toml: No such file"),
    (["deploy", "tiny.toml", "--set", "rounds=x"], "rounds: Input should be a valid integer"),
    (["resume", "nowhere"], "nowhere: no such folder"),
    (["simulate", "tiny.toml", "--\u202ex"], "No such option '--\\u202ex'; see fedjoint simulate"),
    (["simulate", "tiny.toml", "a\n\u202eb"], "unexpected extra argument"),
    (["\u202enothing"], "No such command '\\u202enothing'; see fedjoint --help"),
    (["simulate", "tiny.toml", "--rounds", "\u202e" * 500], "Invalid value for '--rounds'"),
    (["simulate"], "Missing argument 'SCENARIO'; see fedjoint simulate --help"),
    (["compare", "tiny.toml", "--groups", "\u202e"], "unknown task in --groups '\\u202e'"),
    (["compare", "tiny.toml", "--tune", "1000000000"], "give 1000 trials for each arm, or fewer"),
    (["bench-strategies", "tiny.toml", "--strategies", "fedavg[x"], "fedavg[x"),
    (["affinity", "tiny.toml"], "affinity needs three tasks or more"),
    (["predict", "nowhere", "x.npy"], "nowhere"),
    (["prune", ".", "--days", "nan"], "--days nan: give a number"),
    (["keys", "k", "--host", "a\u202eb", "--nodes", "a"], "host 'a\\u202eb': give an address"),
    (["nodes", "--server", "1:2:3"], "'1:2:3': write the server's address as HOST:PORT"),
    (["register", "--keys", "."], "server/ca.pem: no such file; make keys with fedjoint keys"),
    (["client", "--clients", "9" * 30], "give different ids from 0 to"),
    (["client", "--clients", "0", "--data", "/dev/zero"], "/dev/zero: no such file or folder"),
    (
        ["predict", "nowhere", "p.py", "--output", "./p.py"],
        "that is the file to read",
    ),
    (setting('data.clients="3"'), "data.clients: Input should be a valid integer (given: '3')"),
    (setting("rounds=1.0"), "rounds: Input should be a valid integer (given: 1.0)"),
    (setting('local.drop_last="yes"'), "local.drop_last: Input should be a valid boolean"),
    (setting("local.sequential=true"), "unknown key 'local.sequential': allowed here are"),
    (setting('local.lr_scales=["1"]'), "local.lr_scales.0: Input should be a valid number"),
]


@pytest.mark.parametrize(("arguments", "says"), CASES)
def test_it_is_one_line_and_no_run_is_left(here, monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(sys, "argv", ["fedjoint", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith("error: ") and says in line and len(line) < 2100
    assert line.isprintable() and not (here / "runs").exists()


def test_a_folder_that_is_gone_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", ["fedjoint", "list"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: the folder you are in: No such file")


@pytest.mark.slow
def test_a_terminal_of_ascii_gets_what_it_can_show(here):
    program = Path(sys.executable).parent / "fedjoint"
    done = subprocess.run(
        [program, "compare", "tiny.toml", "--seeds", "2"],
        cwd=here,
        env={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
        capture_output=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0 and b"0." in done.stdout, done.stderr.decode()


@pytest.mark.parametrize("columns", ["0", "00", ""])
def test_no_columns_are_those_of_a_terminal(here, monkeypatch, capsys, columns):
    monkeypatch.setattr(sys, "argv", ["fedjoint", "list", "metrics"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        cli.main()
    assert "COLUMNS" not in os.environ


def test_a_line_is_short_and_obeyed_by_no_terminal():
    error = UserError("a\nb\x1b[2J\u202e " + "x" * 500 + " end " + "word " * 1000)
    line = str(error)
    assert line.startswith("a\\nb\\x1b[2J\\u202e " + "x" * 200 + "... end word")
    assert line.isprintable() and len(line) < 2010
    assert one_line("é ± 日本") == "é ± 日本"
