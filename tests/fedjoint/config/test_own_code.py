"""Code of the user's own: what a digest of it follows, and what it leaves alone."""

import pytest

from fedjoint.config import own_code as module
from fedjoint.config.load import check
from fedjoint.config.own_code import own_code

TREE = {
    "strategy": {"name": "mine.py:Merge"},
    "local": {"method": "method.py:Mine"},
    "problem": "problem.py:make",
    "model": {"backbone": {"name": "net.py:net", "options": {"inner": "block.py:Block"}}},
    "losses": {"a": "loss.py:loss"},
    "metrics": {"a": ["metric.py:metric", "accuracy"]},
    "callbacks": ["watch.py:Watch"],
}
NAMED = ("mine", "method", "problem", "net", "block", "loss", "metric", "watch")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMED:
        (tmp_path / f"{name}.py").write_text(f"# {name}\n")
    return tmp_path


def digests(tree=TREE):
    """What a process that starts now would have."""
    module._digest.cache_clear()
    return own_code(check(tree))


def test_each_file_that_a_setting_or_an_option_names_counts(folder):
    before = digests()
    assert {reference.partition(".")[0] for reference in before} == set(NAMED)
    assert digests() == before
    for name in NAMED:
        (folder / f"{name}.py").write_text(f"# {name}, edited\n")
        after = digests()
        changed = {r for r in before if before[r] != after[r]}
        assert [r.partition(".")[0] for r in changed] == [name]
        before = after


def test_so_do_the_neighbours_that_it_imports_and_no_others(folder):
    merge = (
        "import torch\nfrom helper import f\nfrom tools.one import g\n\ndef h():\n    import late"
    )
    (folder / "mine.py").write_text(merge)
    (folder / "helper.py").write_text("import further, mine")
    (folder / "tools").mkdir()
    for name in ("further", "late", "other", "tools/__init__", "tools/one", "tools/two"):
        (folder / f"{name}.py").write_text("")
    tree = {"strategy": "mine.py:Merge"}
    for name, counts in (
        ("helper", True),
        ("further", True),
        ("late", True),
        ("tools/two", True),  # which tools/one may import
        ("other", False),
    ):
        before = digests(tree)
        with (folder / f"{name}.py").open("a") as file:
            file.write("\n# edited\n")
        assert (digests(tree) != before) == counts, name


def test_a_module_counts_as_a_file_does(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    tree = {"strategy": "mine:Merge"}
    before = digests(tree)
    (folder / "mine.py").write_text("# edited\n")
    assert before.keys() == {"mine:Merge"} and digests(tree) != before


PACKAGE = {
    "mypkg/__init__.py": "",
    "mypkg/rule.py": "from mypkg.helper import f\nfrom beside import g\nimport tools.h\n",
    "mypkg/helper.py": "",
    "mypkg/sub/__init__.py": "",
    "mypkg/sub/r.py": "from ..helper import f\n",
    "beside.py": "",
    "tools/h.py": "",  # a package without __init__
    "other.py": "",
}


@pytest.mark.parametrize(
    ("reference", "counts"),
    [
        ("mypkg.rule:Merge", {"mypkg/rule.py", "mypkg/helper.py", "beside.py", "tools/h.py"}),
        ("mypkg.sub.r:Merge", {"mypkg/sub/r.py", "mypkg/helper.py"}),
        ("mypkg/sub/r.py:Merge", {"mypkg/sub/r.py", "mypkg/helper.py"}),
    ],
)
def test_of_a_package_all_that_its_modules_import_counts(reference, counts, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in [*counts, "other.py"]:
        before = digests({"strategy": reference})
        with (folder / name).open("a") as file:
            file.write("# edited\n")
        assert (digests({"strategy": reference}) != before) == (name in counts), name


def test_looking_for_a_module_imports_nothing(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "broken").mkdir()
    (folder / "broken" / "__init__.py").write_text("1 / 0")
    (folder / "broken" / "r.py").write_text("")
    assert digests({"strategy": "broken.r:Merge"}).keys() == {"broken.r:Merge"}


def test_what_names_no_code_has_none(folder):
    options = {
        "path": "a.csv",
        "targets": {"x": "no.such.module:y"},
        "at": "12:30",
        "b": ":",
        "c": "",
    }
    tree = {"strategy": "absent.py:Merge", "data": {"source": {"name": "csv", "options": options}}}
    assert digests(tree) == {} == digests({})


def test_code_that_cannot_be_parsed_still_counts(folder):
    tree = {"strategy": "mine.py:Merge"}
    before = digests(tree)
    (folder / "mine.py").write_text("def (")
    assert digests(tree) != before
