"""Small runs of digits, and arms whose curves are written by hand."""

import io
from pathlib import Path

from rich.console import Console
from support.records import make_record

from fedjoint.config.load import check
from fedjoint.experiments.arms import Arm, Trained
from fedjoint.model.tasks import Task
from fedjoint.problem import build_problem
from fedjoint.runs.record import Seconds, Steps, Traffic
from fedjoint.runs.result import RunResult

ACCURACY = Task("kind", "multiclass", 3)
ERROR = Task("size", "regression", 1, metric="rmse")
UP = Task("up", "regression", 1)


def digits(tmp_path, **more):
    """Return the configuration of a few rounds of a few clients."""
    tree = {
        "rounds": 3,
        "data": {"clients": 7, "test_fraction": 0.6},
        "model": {"backbone": {"options": {"hidden": [16, 8]}}},
        "local": {
            "epochs": 2,
            "optimiser": {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.01},
            "lr_decay": 0.9,
        },
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path)},
    }
    return check({**tree, **more})


def two_tasks(tmp_path, **more):
    """Return ``digits`` with two tasks: five clients have the one, two have the other."""
    mix = [["digit"], ["digit"], ["ink"]]
    return digits(
        tmp_path, **{"data": {"clients": 7, "test_fraction": 0.6, "task_mix": mix}, **more}
    )


def curve(spread=None, steps=0, **values):
    """Return a run: split and task -> value at rounds 2, 4, ...

    Each of its rounds sends 1.5 MB and takes half a second, and ``steps`` gradient steps in all.
    """
    count = max(len(v) for v in values.values())
    records = []
    for round in range(1, 2 * count + 1):
        at: dict[str, dict] = {"train": {}, "valid": {}, "test": {}}
        for name, series in values.items():
            split, task = name.split("_")
            at[split][task] = series[round // 2 - 1]
        records.append(
            make_record(
                round,
                evaluation=None if round % 2 else at,
                spread=None if round % 2 else spread,
                steps=Steps(steps / 2, steps),
                bytes=Traffic(10**6, 5 * 10**5),
                seconds=Seconds(0.1, 0.1, 0.1, 0.1, 0.1, 0.5),
            )
        )
    return RunResult(Path(), check({}), records, {})


def arm(name, *runs, tasks=(ACCURACY,)):
    """Return an arm of these runs, one per seed, each of two clients."""
    return Arm(name, tasks, [Trained((run,), 2) for run in runs], 0.1)


def final(name, *values):
    """Return an arm with these test accuracies, one per seed."""
    return arm(name, *(curve(test_kind=[v], train_kind=[v + 0.1]) for v in values))


def both(name, up, down):
    """Return an arm of two tasks: one metric that should rise, one that should fall, by seed."""
    runs = [curve(test_up=[u], test_size=[d]) for u, d in zip(up, down, strict=True)]
    return arm(name, *runs, tasks=(UP, ERROR))


def wide(name, value, step=1.1):
    """Return an arm of the five tasks of digits over three seeds, with wide numbers.

    From one seed to the next the metrics fall by ``step``.
    """
    tasks = build_problem(check({})).tasks
    runs = []
    for seed in range(3):
        each: dict[str, list[float]] = {}
        for split in ("train", "valid", "test"):
            each |= {f"{split}_{task.name}": [value - step * seed] for task in tasks}
        spread = {
            t.name: {"clients": 4, "std": 0.125, "worst": -9.5, "worst_tenth": -8.25} for t in tasks
        }
        runs.append(curve(spread, 12345, **each))
    return arm(name, *runs, tasks=tuple(tasks))


def printed(show):
    """Return what ``show(console)`` prints on 80 columns: all that it prints on many."""
    texts = []
    for width in (80, 500):
        file = io.StringIO()
        show(Console(file=file, width=width))
        texts.append(file.getvalue())
    narrow, full = ("".join(sorted(text.replace("─", ""))).split() for text in texts)
    assert narrow == full
    assert all(len(line) <= 80 for line in texts[0].splitlines())
    return texts[0]
