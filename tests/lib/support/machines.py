"""Real processes of a deployment on this machine, and a wire that can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from fedjoint._util import processes
from fedjoint._util.net import free_port, listens
from fedjoint.deploy.address import parse

PROGRAM = str(Path(sys.executable).with_name("fedjoint"))


class Site:
    """A folder with one server and its nodes; everything is killed on leaving."""

    def __init__(self, folder: Path):
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        self.processes: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in list(self.processes):
            self.kill(name)

    def start(self, name, *arguments, **environment):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [PROGRAM, *map(str, arguments)],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
                start_new_session=True,
            )

    def server(self, *arguments, **environment):
        """Start the server, and wait until it listens: nodes that come before try again later."""
        self.start("server", "server", "--address", self.address, *arguments, **environment)
        self.until(lambda: listens(*parse(self.address)))

    def node(self, name, clients, *arguments, server=None, **environment):
        self.start(
            name,
            *("client", "--name", name, "--clients", clients, "--state", name),
            *("--server", server or self.address, *arguments),
            **environment,
        )

    def deploy(self, name, *arguments):
        self.start(name, "deploy", *arguments, "--server", self.address)

    def kill(self, name):
        """Kill a program and all that it started, as a power cut does."""
        process = self.processes.pop(name)
        processes.kill(process.pid)
        process.wait()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text("utf-8", errors="replace")

    @property
    def run(self):
        (run,) = [p for p in (self.folder / "runs").iterdir() if (p / "run.json").exists()]
        return run

    def records(self):
        try:
            lines = (self.run / "metrics.jsonl").read_text("utf-8").split("\n")[:-1]
        except (ValueError, FileNotFoundError):
            return []
        return [json.loads(line) for line in lines]

    def last(self):
        """Return the newest round."""
        return self.records()[-1]["round"]

    def trained(self, client, after):
        """Return the rounds after one in which ``client`` trained."""
        rounds = [r["round"] for r in self.records() if client in r["clients"]["ids"]]
        return [round for round in rounds if round > after]

    def without(self, client, after):
        """Return the records of rounds after one in which ``client`` did not train."""
        records = [r for r in self.records() if r["round"] > after]
        return [r for r in records if client not in r["clients"]["ids"]]

    def failures(self, client, after):
        """Return the failures of rounds without ``client``, as ``node: reason``."""
        lost = [f for r in self.without(client, after) for f in r["clients"]["failed"]]
        return [f"{f['name']}: {f['reason']}" for f in lost]

    def told(self):
        """Return the messages in the run's log."""
        lines = (self.run / "log.jsonl").read_text("utf-8").split("\n")[:-1]
        return [json.loads(line)["message"] for line in lines]

    def until(self, what, ending=""):
        """Wait until ``what()`` is true, and return it.

        The limit is for a wait in vain: a busy machine may take minutes for what takes seconds.
        Where a program fails meanwhile, other than ``ending``, the wait is in vain at once.
        """
        end = time.monotonic() + 600.0
        while not (found := what()):
            failed = [n for n, p in self.processes.items() if n != ending and p.poll()]
            if failed or time.monotonic() > end:
                tails = {n: self.log(n)[-1500:] for n in self.processes}
                raise AssertionError(f"waited in vain; failed: {failed}; {tails}")
            time.sleep(0.1)
        return found

    def finish(self, name):
        """Wait for a program to end, and return its exit status."""
        self.until(lambda: self.processes[name].poll() is not None, ending=name)
        return self.processes.pop(name).returncode


class Wire:
    """Forwards a port of this machine to an address, until it is cut."""

    def __init__(self, address: str):
        host, port = address.split(":")
        self.target = host, int(port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.whole = True
        self.open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        self.whole = False
        for end in list(self.open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def restore(self):
        self.whole = True

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            if not self.whole:
                near.close()
                continue
            try:
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, sink):
        self.open.add(source)
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        self.open.discard(source)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
