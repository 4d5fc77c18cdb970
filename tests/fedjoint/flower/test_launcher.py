"""What a server says of the processes of its runs."""

from types import SimpleNamespace

from fedjoint.flower import launcher
from fedjoint.flower.launcher import Launcher


def test_a_process_that_takes_long_to_start_is_taken_for_alive(monkeypatch):
    alive, finished = [], []
    state = SimpleNamespace(
        acknowledge_task_heartbeat=alive.append, finish_task=lambda *a: finished.append(a[0])
    )
    tokens = ["token", ""]
    found = [SimpleNamespace(token=t, task=SimpleNamespace(task_id=7)) for t in tokens]
    process = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(launcher, "acquire_task", lambda request, state: found.pop(0))
    monkeypatch.setattr(launcher.subprocess, "Popen", lambda *a, **k: process)
    runs = Launcher(state, [], None)
    runs._look()
    assert alive == [7] and not finished
    process.poll, process.returncode = lambda: -9, -9
    runs._look()
    assert finished == [7]
