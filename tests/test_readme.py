"""What the README says can be done is done here."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import fedjoint
from fedjoint.config.load import check
from fedjoint.data.build import make_source

TEXT = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_own_task_backbone_and_data_in_thirty_lines(tmp_path):
    assert len(PYTHON[0].splitlines()) < 30
    done = subprocess.run(
        [sys.executable, "-c", PYTHON[0]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'ring'" in done.stdout and list(tmp_path.glob("runs/run-*/final/*.safetensors"))


def test_own_strategy_in_a_file(tmp_path):
    plugin = tmp_path / "my_file.py"
    plugin.write_text(PYTHON[1], "utf-8")
    result = fedjoint.simulate(
        {
            "rounds": 2,
            "data": {"clients": 4},
            "strategy": {"name": f"{plugin}:SignMajority", "options": {"scale": 0.5}},
            "engine": {"name": "inline"},
            "output": {"dir": str(tmp_path)},
        }
    )
    assert [record.kept for record in result.records] == [None, None]


def test_every_strategy_is_listed():
    from fedjoint.registry import registered

    listed = set(re.findall(r"`(\w+)`", TEXT))
    assert [name for name in registered("strategies") if name not in listed] == []


def test_the_toml_is_a_configuration_of_data_that_there_are():
    for text in re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL):
        make_source(check(tomllib.loads(text)).data.source)
