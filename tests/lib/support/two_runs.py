"""A tiny run that is done, one that was killed, and others of the same settings."""

import gc
import shutil
from types import SimpleNamespace

import numpy as np

from fedjoint.config.load import check
from fedjoint.simulation import simulate

ROWS = [
    f"{a:.4f},{b:.4f},{number % 3}"
    for number, (a, b) in enumerate(np.random.default_rng(0).normal(size=(60, 2)))
]


def put_rows(path, rows):
    path.write_text("\n".join(["x,y,kind", *rows]) + "\n")


def make_runs(folder):
    """Make two runs that are done, and copies of them as they were after round 5 of 6.

    A killed process leaves such a copy: checkpoints of rounds 2 and 4, and the log of a database.
    """
    put_rows(folder / "rows.csv", ROWS)
    options = {"path": str(folder / "rows.csv"), "targets": {"kind": "multiclass"}}
    settings = {
        "rounds": 6,
        "data": {"source": {"name": "csv", "options": options}, "clients": 3, "partition": "iid"},
        "model": {"backbone": {"options": {"hidden": [4]}}},
        "local": {"steps": 1},
        "strategy": {"name": "scaffold"},
        "engine": {"name": "inline", "cache_clients": 1},
        "output": {"checkpoint_every": 2},
    }
    done, cut = {}, {}
    for name in ("own", "other"):
        settings["output"]["dir"] = str(folder / name)

        def copy(record, name=name):
            if record.round == 5:
                (run,) = (folder / name).iterdir()
                cut[name] = folder / f"{name}-cut"
                shutil.copytree(run, cut[name])

        done[name] = simulate(check(settings), callbacks=[copy])
        gc.collect()  # which closes the database
    return SimpleNamespace(
        folder=folder,
        rows=folder / "rows.csv",
        result=done["own"],
        done=done["own"].path,
        other_done=done["other"].path,
        cut=cut["own"],
        other_cut=cut["other"],
    )
