"""What docs/data.md writes in a configuration is allowed there, and what it says is said."""

import re
import tomllib
from pathlib import Path

from support.building import build_data

from fedjoint.config.load import check
from fedjoint.data.build import make_source

PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text("utf-8")


def test_its_settings_are_allowed():
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        make_source(check(tomllib.loads(block)).data.source)


def test_its_line_is_the_one_that_is_said(tmp_path, caplog):
    said = re.search(r"^WARNING fedjoint.data: (.*?)```", PAGE, re.DOTALL | re.MULTILINE)[1]
    rows = [
        f"{i},{i % 7},p{i},2024-01-0{1 + i % 9},{i % 2},{i / 2 if i > 4 else ''}" for i in range(60)
    ]
    (tmp_path / "patients.csv").write_text("age,dose,name,seen,diagnosis,stay\n" + "\n".join(rows))
    options = {"diagnosis": "multiclass", "stay": "regression"}
    source = {
        "name": "csv",
        "options": {"path": str(tmp_path / "patients.csv"), "targets": options},
    }
    build_data(check({"data": {"source": source, "clients": 3}}).data, 0)
    (record,) = caplog.records
    assert record.getMessage() == " ".join(said.split())
