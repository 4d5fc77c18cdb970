"""Processes are found and stopped with what they started."""

import math
import subprocess
import sys
import time

from fedjoint._util import processes


def test_a_process_is_stopped_with_all_it_started():
    inner = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    outer = subprocess.Popen([sys.executable, "-c", code])
    while len(found := processes.tree(outer.pid)) < 2:
        time.sleep(0.01)
    assert found[0] == outer.pid
    assert processes.megabytes(found) > processes.megabytes(found[:1]) > 1
    processes.kill(outer.pid)
    outer.wait()
    # The orphan is a zombie until init takes it, with no memory of its own.
    while not math.isnan(processes.megabytes(found)):
        time.sleep(0.01)
