"""What a server says of the processes of its runs."""

import json
import subprocess
import sys
from types import SimpleNamespace

from fedjoint.config.load import check
from fedjoint.flower import launcher, obituary
from fedjoint.flower.launcher import Launcher
from fedjoint.runs.directory import RunDir


def test_a_process_that_takes_long_to_start_is_alive_and_one_that_is_killed_failed(
    tmp_path, monkeypatch
):
    run = RunDir.create(tmp_path, "run", check({}))
    run.mark("running")
    alive, finished = [], []

    def finish(task, *_):
        assert run.status == "failed", "whoever hears that it has ended can read why"
        finished.append(task)

    state = SimpleNamespace(
        acknowledge_task_heartbeat=alive.append,
        finish_task=finish,
        get_run_info=lambda run_ids: [
            SimpleNamespace(override_config={"run-dir": str(run.path)}),
            SimpleNamespace(override_config={"run-dir": str(tmp_path / "gone")}),
            SimpleNamespace(override_config={}),
        ],
    )
    tokens = ["token", ""]
    found = [SimpleNamespace(token=t, task=SimpleNamespace(task_id=7, run_id=3)) for t in tokens]
    process = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(launcher, "acquire_task", lambda request, state: found.pop(0))
    monkeypatch.setattr(launcher.subprocess, "Popen", lambda *a, **k: process)

    def as_a_program(command, timeout):
        assert command[-4:-2] == ["-m", "fedjoint.flower.obituary"]
        monkeypatch.setattr("sys.argv", ["obituary", *command[-2:]])
        obituary.main()

    monkeypatch.setattr(launcher.subprocess, "run", as_a_program)
    monkeypatch.setattr(obituary, "start_logging", lambda: None)
    runs = Launcher(state, [], None)
    runs._look()
    assert alive == [7] and not finished
    process.poll, process.returncode = lambda: -9, -9
    runs._look()
    assert finished == [7]
    (line,) = map(json.loads, (run.path / "log.jsonl").read_text().splitlines())
    assert line["level"] == "ERROR"
    assert line["message"] == "the run ends: its process was killed by signal 9"


def test_a_server_does_without_pytorch():
    code = (
        "import sys, fedjoint.deploy.server, fedjoint.flower.launcher, fedjoint.flower.superlink; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class Deaf:
    """A process that ends only where it is killed."""

    def __init__(self):
        self.killed = False

    def terminate(self):
        pass

    def poll(self):
        return -9 if self.killed else None

    def wait(self, timeout=None):
        if not self.killed:
            raise subprocess.TimeoutExpired("run", timeout)

    def kill(self):
        self.killed = True


def test_a_run_that_does_not_end_with_its_server_is_killed_and_noted(tmp_path, monkeypatch):
    asked, noted, finished, process = [], [], [], Deaf()

    def runs(run_ids):
        asked.extend(run_ids)
        return [SimpleNamespace(override_config={"run-dir": str(tmp_path)})]

    state = SimpleNamespace(
        acknowledge_task_heartbeat=lambda task: None,
        finish_task=lambda task, *_: finished.append(task),
        get_run_info=runs,
    )
    tokens = ["token", ""]
    found = [SimpleNamespace(token=t, task=SimpleNamespace(task_id=7, run_id=3)) for t in tokens]
    monkeypatch.setattr(launcher, "acquire_task", lambda request, state: found.pop(0))
    monkeypatch.setattr(launcher.subprocess, "Popen", lambda *a, **k: process)
    monkeypatch.setattr(launcher.subprocess, "run", lambda command, **_: noted.append(command))
    server = Launcher(state, [], None)
    server._look()
    server._often = SimpleNamespace(join=lambda: None)
    server.drain()
    assert process.killed and asked == [3] and finished == [7]
    assert noted[0][-2:] == [str(tmp_path), "it did not end within 60 s, and was killed"]
