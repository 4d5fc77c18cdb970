"""``fedjoint new``: what it writes runs, and passes its own test."""

import subprocess
import sys

import pytest

from fedjoint.cli.new import new_command
from fedjoint.errors import UserError

KINDS = ("strategy", "method", "source", "scenario")


@pytest.mark.slow
def test_what_it_writes_passes_its_own_tests_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        new_command(kind, f"my_{kind}")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{test}my_{kind}.py" for kind in KINDS for test in ("", "test_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


@pytest.mark.parametrize("name", ["pcgrad", "3x", "a-b", "class", "_own", "json", "there"])
def test_names_that_are_taken_or_no_names_are_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_there.py").write_text("mine")
    with pytest.raises(UserError, match=r"choose another name|write one such as my_rule") as error:
        new_command("strategy", name)
    assert "\n" not in str(error.value)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_an_unknown_kind_is_one_line():
    with pytest.raises(UserError, match=r"unknown kind 'strategies'.*did you mean 'strategy'"):
        new_command("strategies", "mine")
