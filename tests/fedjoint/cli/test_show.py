"""``fedjoint show``: options with type, default and meaning, for every kind of plug-in."""

import pytest

from fedjoint.cli.catalogue import catalogue
from fedjoint.cli.show import entries_of, show_command
from fedjoint.errors import UserError
from fedjoint.registry import KINDS


def shown(capsys, name):
    show_command(name)
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_options_have_type_default_and_meaning(capsys):
    lines = shown(capsys, "gradvac")
    assert lines[0] == "gradvac: strategy"
    at = lines.index("option beta: a number > 0 and <= 1; default 0.01")
    assert lines[at + 1] == "how fast the targets follow the cosines, in (0, 1]."
    assert "left out: targets of each layer's own" in lines
    assert any(line.startswith("paper: Wang et al.") for line in lines)


def test_what_has_to_be_given_and_where_it_is_named(capsys):
    lines = shown(capsys, "csv")
    assert "option path: a text or a list, each a text; to be given" in lines
    assert "named in: data.source" in lines


def test_a_name_of_several_kinds_shows_them_all_unless_one_is_named(capsys):
    assert [kind for kind, _ in entries_of("scaffold")] == ["strategies", "methods"]
    assert [kind for kind, _ in entries_of("methods/scaffold")] == ["methods"]
    assert shown(capsys, "fedper")[0] == "fedavg: strategy, also fedper"


def test_a_file_of_one_s_own(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    'Merges.'\n\n    def __init__(self, scale: float = 2.0): ...\n"
    )
    lines = shown(capsys, f"strategies/{tmp_path}/mine.py:Mine")
    assert "option scale: a number; default 2.0" in lines and "Merges." in lines
    with pytest.raises(UserError, match="say which kind it is, as in strategies/"):
        show_command("mine.py:Mine")


def test_an_unknown_name_is_one_line():
    with pytest.raises(UserError, match=r"unknown name 'pcgard'.*did you mean 'pcgrad'"):
        show_command("pcgard")


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_built_in_is_explained(kind):
    unexplained = [
        (entry.names, option.name)
        for entry in catalogue(kind)
        for option, meaning in entry.options
        if not meaning or option.allowed == "anything"
    ]
    assert unexplained == []
