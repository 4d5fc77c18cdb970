"""Names -> objects: built-ins by their files, entry points, modules and files."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

import fedjoint.registry
from fedjoint.errors import UserError
from fedjoint.registry import KINDS, Kind, find, load_object, registered
from fedjoint.strategies.fedavg import FedAvg


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Add a file to a package of built-ins, as a new file in an editable checkout does."""
    (tmp_path / "rules").mkdir()
    monkeypatch.setitem(KINDS, "strategies", Kind("strategy", "strategy", "rules"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "rules"
    for name in [name for name in sys.modules if name.partition(".")[0] == "rules"]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_name_is_an_object_of_its_own_file(kind):
    for name in registered(kind):
        found = find(kind, name)
        member = (KINDS[kind].member or name).replace("_", "")
        own = getattr(found, "__name__", member).lower().replace("_", "")
        assert own in (member, "fedavg")


def test_a_new_file_is_registered_at_once_and_imported_when_it_is_used(package):
    (package / "__init__.py").write_text("")
    (package / "_helper.py").write_text("")
    (package / "best_rule.py").write_text("class BestRule: ...\nclass Other: ...\n")
    assert registered("strategies") == ["best_rule"]
    assert "rules.best_rule" not in sys.modules
    assert find("strategies", "best_rule").__name__ == "BestRule"


@pytest.mark.parametrize(
    ("text", "said"), [("x = 1", "has no rule; name it as the file"), ("x = ", "cannot import")]
)
def test_a_file_without_what_it_is_named_after_is_one_line(package, text, said):
    (package / "rule.py").write_text(text)
    with pytest.raises(UserError, match=said):
        find("strategies", "rule")


def test_another_name_of_the_same_rule_is_the_same_object():
    assert find("strategies", "fedper") is find("strategies", "fedavg") is FedAvg


def test_packages_add_names_and_do_not_replace_built_ins(monkeypatch):
    points = [
        EntryPoint("mine", "collections:Counter", "fedjoint.strategies"),
        EntryPoint("fedavg", "collections:Counter", "fedjoint.strategies"),
        EntryPoint("broken", "nowhere.at:all", "fedjoint.strategies"),
    ]
    monkeypatch.setattr(fedjoint.registry, "entry_points", lambda group: EntryPoints(points))
    assert {"mine", "fedavg", "krum"} <= set(registered("strategies"))
    assert find("strategies", "mine").__name__ == "Counter"
    assert find("strategies", "fedavg") is FedAvg
    with pytest.raises(
        UserError, match=r"strategy 'broken' \(nowhere.at:all\): ModuleNotFoundError: No module"
    ):
        find("strategies", "broken")


def test_files_and_modules(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("class Rule: ...\n")
    assert find("methods", f"{file}:Rule") is load_object(f"{file}:Rule")
    assert find("strategies", "collections:OrderedDict").__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pcgard", "unknown strategy 'pcgard': .*did you mean 'pcgrad'"),
        ("nowhere:Rule", "cannot import nowhere"),
        ("nowhere.py:Rule", "nowhere.py: no such file"),
        ("collections:Ordereddict", "did you mean 'OrderedDict'"),
        (":Rule", "write it as package.module:name"),
    ],
)
def test_a_wrong_name_is_one_line(name, said):
    with pytest.raises(UserError, match=said) as error:
        find("strategies", name)
    assert "\n" not in str(error.value)


def test_names_are_listed_without_importing_anything_heavy():
    code = (
        "import sys, fedjoint.registry as r\n"
        "assert all(r.registered(kind) for kind in r.KINDS if r.KINDS[kind].package)\n"
        "print({'torch', 'pydantic', 'numpy', 'ray', 'flwr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_file_may_import_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "my_neighbour_of_tests.py").write_text("VALUE = 7\n")
    (tmp_path / "mine.py").write_text("from my_neighbour_of_tests import VALUE\n")
    assert load_object(f"{tmp_path / 'mine.py'}:VALUE") == 7
