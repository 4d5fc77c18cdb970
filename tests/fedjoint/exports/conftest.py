"""The program, called in a folder of its own."""

import sys

import pytest

from fedjoint.cli import main


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Call the program in ``tmp_path``; return its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedjoint", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code, *capsys.readouterr()

    return call
