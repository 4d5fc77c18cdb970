"""What a server says of the processes of its runs."""

import json
from types import SimpleNamespace

from fedjoint.config.load import check
from fedjoint.flower import launcher
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
    runs = Launcher(state, [], None)
    runs._look()
    assert alive == [7] and not finished
    process.poll, process.returncode = lambda: -9, -9
    runs._look()
    assert finished == [7]
    (line,) = map(json.loads, (run.path / "log.jsonl").read_text().splitlines())
    assert line["level"] == "ERROR"
    assert line["message"] == "the run ends: its process was killed by signal 9"
