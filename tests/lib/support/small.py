"""Runs of a few clients and rounds."""

from fedjoint.config.load import check


def config(tmp_path, **more):
    tree = {
        "rounds": 4,
        "data": {"clients": 7, "test_fraction": 0.6, "task_mix": [["digit"], ["loop", "ink"]]},
        "model": {"backbone": {"options": {"hidden": [16, 8]}}},
        "local": {"epochs": 1, "optimiser": {"lr": 0.05, "momentum": 0.5}},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path), "checkpoint_every": 2},
    }
    return check({**tree, **more})
