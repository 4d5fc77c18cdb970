"""The page on run directories: its Python runs, and its files are those that a run leaves."""

import re
from pathlib import Path

import numpy as np

from fedjoint.exports.predict import predict

PAGE = (Path(__file__).parents[1] / "docs/runs.md").read_text("utf-8")


def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    result, again, exported = names["result"], names["again"], names["exported"]
    assert [r.round for r in again.records] == [1, 2, 3, 4]
    assert again.records == result.records
    listed = set(re.findall(r"`([\w./]+)`", PAGE[PAGE.index("| file") : PAGE.index("In a dep")]))
    left = {path.relative_to(result.path) for path in result.path.rglob("*")}
    unlisted = {path for path in left if path.parts[0] not in ("checkpoints", "final")}
    unlisted -= {Path(name) for name in listed}
    assert {path.name for path in unlisted} <= {"state.sqlite-wal", "state.sqlite-shm"}
    assert {Path(name) for name in listed} - left - {Path("checkpoints/")} == {
        Path("flower.json"),
        Path("best/backbone.safetensors"),
    }
    np.save("x.npy", exported.example.numpy())
    _, ((label, _),) = predict(Path("digit"), Path("x.npy"))
    assert int(label) == names["outputs"].argmax()
