"""Ctrl-C and SIGTERM at any instant: their status, no traceback, a run that is "stopped"."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedjoint._util.interrupt import held
from fedjoint.simulation import resume, simulate

SETTINGS = [
    "rounds=10000",
    "data.clients=3",
    "data.task_mix=[['digit']]",
    "engine.workers=1",
    "output.checkpoint_every=1",
]

# A Ctrl-C as a module is imported, or as a function is called.
HARNESS = """
import builtins, importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
kind, name = sys.argv.pop(1).split("=")
number = int(sys.argv.pop(1))

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, found, path, target=None):
        if kind == "import" and found == name:
            os.kill(os.getpid(), number)
        begun = found in ("fedjoint.engines.processes", "fedjoint.engines.local")
        if kind == "call" and begun and self in sys.meta_path:
            sys.meta_path.remove(self)
            module, _, function = name.rpartition(".")
            import importlib
            there = importlib.import_module(module)
            own = getattr(there, function)
            def call(*arguments, **options):
                os.kill(os.getpid(), number)
                return own(*arguments, **options)
            setattr(there, function, call)

sys.meta_path.insert(0, Watch())
from fedjoint._start import main
main()
"""


def interrupted(tmp_path, what, engine="inline", number=signal.SIGINT):
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-c", HARNESS, what, str(int(number))]
    command += ["simulate", "digits", "--engine", engine]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(
            [*command, *words], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
        run.wait()
    return run, (tmp_path / "log").read_text()


def of_session(session):
    """Return the processes that a program has left, whoever is their parent now."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(own) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def statuses(tmp_path):
    return [json.loads(file.read_text())["status"] for file in tmp_path.glob("runs/*/run.json")]


@pytest.mark.parametrize("module", ["typer", "rich.console", "fedjoint.cli.simulate", "torch"])
def test_while_modules_are_imported_nothing_has_begun(module, tmp_path):
    run, said = interrupted(tmp_path, f"import={module}")
    assert run.returncode == 130 and "Traceback" not in said
    assert statuses(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "engine"),
    [
        ("import=ray", "ray"),
        ("import=torch", "ray"),
        ("import=fedjoint.simulation", "ray"),
        ("call=ray._private.services.start_gcs_server", "ray"),
        ("call=ray._private.services.start_raylet", "ray"),
        ("call=fedjoint.server.serve.run_round", "inline"),
        ("call=fedjoint.server.serve.run_round", "ray"),
    ],
)
def test_a_run_is_stopped_and_leaves_no_process(what, engine, tmp_path):
    run, said = interrupted(tmp_path, what, engine)
    assert run.returncode == 130 and "Traceback" not in said, said
    assert set(statuses(tmp_path)) <= {"stopped"}
    if what.endswith("run_round"):
        assert statuses(tmp_path) == ["stopped"]
    while left := of_session(run.pid):  # what was killed is gone in no time
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_client_s_training_is_no_failure_of_the_client(number, tmp_path):
    run, said = interrupted(tmp_path, "call=fedjoint.training.job.schedule", number=number)
    assert run.returncode == 128 + number and "Traceback" not in said, said
    assert statuses(tmp_path) == ["stopped"]


def output(folder):
    return {"output": {"dir": str(folder), "checkpoint_every": 1}}


def test_a_run_that_was_interrupted_goes_on(tmp_path):
    def interrupt(record):
        if record.round == 2:
            raise KeyboardInterrupt

    settings = {
        "rounds": 3,
        "data": {"clients": 3, "task_mix": [["digit"]]},
        "engine": {"name": "inline"},
    }
    with pytest.raises(KeyboardInterrupt):
        simulate(
            settings | {"output": {"dir": str(tmp_path / "a"), "checkpoint_every": 1}},
            callbacks=[interrupt],
        )
    (folder,) = (tmp_path / "a").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "stopped"
    rest = resume(folder)
    whole = simulate(settings | output(tmp_path / "b"))
    assert all(t.equal(whole.backbone[n]) for n, t in rest.backbone.items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_held_is_done_in_full(number):
    before = signal.signal(number, signal.default_int_handler)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt):
            with held():
                signal.raise_signal(number)
                done.append(1)
            done.append(2)
    finally:
        signal.signal(number, before)
    assert done == [1]


def test_what_is_held_is_not_taken_by_what_is_called_inside():
    own, came = signal.signal, []
    before = own(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with held():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as ray.init() does
            signal.raise_signal(signal.SIGTERM)
            assert not came
        assert came == [signal.SIGTERM] and signal.signal is own
    finally:
        own(signal.SIGTERM, before)
