"""What a deployment takes: seconds of a round, CPU seconds of a message, memory while idle.

Starts a server and two nodes on this machine, with keys, and runs digits on them:
``python simulations/deployment/measure.py``. From ``/proc``, so on Linux alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from fedjoint._util.net import free_port
from fedjoint._util.processes import tree

PROGRAM = str(Path(sys.executable).with_name("fedjoint"))
ROUNDS = 20


def main() -> None:
    """Measure, and print a line each."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        address, nodes = f"127.0.0.1:{free_port()}", {"a": "0,1,2", "b": "3,4,5"}
        start("keys", "keys", "--host", "localhost", "--nodes", "a,b").wait()
        started = [start("server", "--address", address, "--keys", "keys")]
        for name, ids in nodes.items():
            own = ("--name", name, "--clients", ids, "--state", name)
            keys = ("--keys", f"keys/nodes/{name}")
            started.append(start("client", "--server", address, *keys, *own))
        try:
            while not all(map(connected, nodes)):
                time.sleep(0.5)
            measure(address, started)
        finally:
            for process in started:
                process.terminate()
                process.wait()


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a program that says nothing."""
    silent = subprocess.DEVNULL
    return subprocess.Popen([PROGRAM, *arguments], stdout=silent, stderr=silent)


def connected(node: str) -> bool:
    """Return whether a node has reached the server."""
    log = Path(node, "log.jsonl")
    return log.exists() and "as node" in log.read_text("utf-8")


def measure(address: str, started: list[subprocess.Popen[bytes]]) -> None:
    """Run digits, and print what that took."""
    idle = [megabytes(process.pid) for process in started]
    print(f"idle: server {idle[0]:.0f} MB, nodes {idle[1]:.0f} and {idle[2]:.0f} MB")
    settings = ("data.clients=6", "engine.min_nodes=2", f"rounds={ROUNDS}")
    words = [word for setting in settings for word in ("--set", setting)]
    before = sum(cpu(process.pid) for process in started)
    at = ("--server", address, "--keys", "keys")
    subprocess.run([PROGRAM, "deploy", "digits", *at, *words], stdout=subprocess.DEVNULL)
    spent = sum(cpu(process.pid) for process in started) - before
    (run,) = Path("runs").glob("digits-*")
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    rounds = [json.loads(line)["seconds"] for line in lines]
    beside = [each["round"] - each["train"] for each in rounds]
    print(f"a round: {median(each['round'] for each in rounds):.2f} s, median of {ROUNDS}")
    print(f"beside training: {median(beside):.2f} s, at most {max(beside):.2f} s")
    messages = sum(Path(node, "log.jsonl").read_text("utf-8").count(": done") for node in "ab")
    print(f"{spent / messages:.2f} CPU s a message, of {messages}, with starting and training")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} cores")


def cpu(root: int) -> float:
    """Return the CPU seconds of a process, of those that it started, and of those that ended."""
    ticks = 0
    for process in tree(root):
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, stat[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def megabytes(process: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (resident,) = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(resident) * 1024 / 1e6


if __name__ == "__main__":
    main()
