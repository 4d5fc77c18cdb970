"""Apps of a node are copies of a process that has imported the libraries, and nothing of ours."""

import subprocess
import sys

import pytest

APPS = """
import os, sys, time


def app(**options):
    libraries = [name in sys.modules for name in ("torch", "torch._dynamo", "flwr.supernode")]
    with open(f"app-{os.getpid()}", "w") as file:
        print(os.getppid(), options["token"], *libraries, "fedjoint" in sys.modules, file=file)


def stuck(**options):
    time.sleep(600)
"""

CODE = """
import multiprocessing
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec
import apps
from fedjoint.flower import superexec

spec = ExecutionSpec(TaskType.CLIENT_APP, "127.0.0.1:1", "token", True, None, False, 1, False, 5)
executor = superexec.Copies()
superexec.run_clientapp = apps.app
for _ in range(2):
    print(executor.launch(spec).status)
    for app in multiprocessing.active_children():
        app.join()
superexec.run_clientapp = apps.stuck
executor.launch(spec)
(app,) = multiprocessing.active_children()
executor.close()
app.join()
print("ended", app.exitcode)
"""


@pytest.mark.slow
def test_apps_are_copies_and_end_with_the_superexec(tmp_path):
    (tmp_path / "apps.py").write_text(APPS)
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["accepted", "accepted", "ended", "-15"]
    one, other = (app.read_text().split() for app in tmp_path.glob("app-*"))
    assert one == other and one[1:] == ["token", "True", "True", "True", "False"]
