"""``fedjoint list``: every registered name, its paper, and what of that is left out."""

import re
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from fedjoint import registry
from fedjoint.cli import main
from fedjoint.cli.catalogue import catalogue
from fedjoint.registry import KINDS, registered

# Rules without a paper of their own.
OURS = {"auto", "taskbalanced", "independent"}
IN_PART = {
    *("bulyan", "cfl", "fedhca2", "fedmgda", "fedprox", "geometricmedian", "gradvac"),
    *("ifca", "imtlg", "matu", "normclip", "prox", "feddf", "fedmd", "fedproto", "config", "swa"),
    *("fedamp", "fedala", "ala", "recon", "taskgroups", "fedmerge", "unify"),
}


def told(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["fedjoint", "list", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    return exit.value.code, capsys.readouterr()


@pytest.mark.parametrize("group", KINDS)
def test_everything_registered_is_there_once_and_in_words(group):
    entries = catalogue(group)
    assert sorted(name for entry in entries for name in entry.names) == registered(group)
    for entry in entries:
        assert entry.summary.endswith((".", ":")), entry
        assert not re.search(r"`|:\w+:|\n", entry.summary + entry.paper), entry


def test_rules_name_their_papers_and_what_they_leave_out():
    entries = [*catalogue("strategies"), *catalogue("methods")]
    without = {name for entry in entries if not entry.paper for name in entry.names}
    assert without == OURS
    assert all("https://" in entry.paper for entry in entries if entry.paper)
    assert {name for entry in entries if entry.omits for name in entry.names} == IN_PART


def test_a_paper_of_a_base_class_is_found():
    papers = {name: e.paper for e in catalogue("strategies") for name in e.names}
    assert papers["krum"] == papers["multikrum"] and "NeurIPS 2017" in papers["krum"]
    assert papers["fedyogi"] == papers["fedadam"] and "ICLR 2021" in papers["fedadam"]


def test_the_list_says_so_beside_the_name(monkeypatch, capsys):
    code, out = told(monkeypatch, capsys)
    assert not code
    lines = out.out.splitlines()
    assert all(group in lines for group in KINDS)
    at = next(n for n, line in enumerate(lines) if line.startswith("fedhca2 (in part): "))
    assert "CVPR 2024, https://arxiv.org/abs/2311.13250" in lines[at + 1]
    assert lines[at + 2].startswith("    left out: momentum and decay of the learnt weights")
    assert any(line.startswith("fedavg, fedper: Federated averaging: step = ") for line in lines)


def test_one_group_alone(monkeypatch, capsys):
    _, out = told(monkeypatch, capsys, "scenarios")
    names = [line.partition(":")[0] for line in out.out.splitlines() if line]
    assert names == registered("scenarios")


def test_an_unknown_group_is_one_line(monkeypatch, capsys):
    code, out = told(monkeypatch, capsys, "method")
    assert code == 2
    assert out.err.strip() == (
        "error: unknown kind of plug-in 'method': allowed are augmentations, backbones, balances, "
        "callbacks, compressions, engines, losses, methods, metrics, scenarios, sources, "
        "strategies, suites; did you mean 'methods'?"
    )


def test_a_kind_without_built_ins_says_how_to_name_one(monkeypatch, capsys):
    _, out = told(monkeypatch, capsys, "callbacks")
    assert out.out.strip() == "none is built in: name yours as file.py:Name in callbacks"


def test_what_cannot_be_loaded_does_not_hide_the_rest(monkeypatch):
    broken = EntryPoint("broken", "nowhere.to:Be", "fedjoint.strategies")
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([broken]))
    entries = {entry.names: entry for entry in catalogue("strategies")}
    assert "No module named 'nowhere'" in entries["broken",].summary
    assert ("cagrad",) in entries
