"""Servers, nodes and runs stop in order, and leave no process behind."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.busy import BUSY
from support.machines import Site

from fedjoint._util import processes
from fedjoint.flower.programs import Connection, program
from fedjoint.runs.directory import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("stopping")]

REPOSITORY = Path(__file__).parents[3]

SETTINGS = [
    "data.clients=4",
    "local.epochs=1",
    "evaluate.every=1000",
    "rounds=1000",
    "engine.min_nodes=2",
    "output.checkpoint_every=1000",
    BUSY,
]

#: a mod of Flower's, which notes what it sees
MOD = """
from pathlib import Path


def note(message, context, call_next):
    reply = call_next(message, context)
    kind, arrays = message.metadata.message_type, reply.content["arrays"]
    Path(__file__).with_name("passed").write_text(f"{kind} {min(arrays)}")
    return reply
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Yield a server and two nodes, with keys."""
    with Site(tmp_path_factory.mktemp("site")) as site:
        site.start("keys", "keys", "keys", "--host", "localhost", "--nodes", "a,b")
        assert site.finish("keys") == 0
        site.server("--keys", "keys")
        (site.folder / "own.py").write_text(MOD)
        site.node("a", "0,1", "--keys", "keys/nodes/a", "--mod", "own.py:note")
        site.node("b", "2,3", "--keys", "keys/nodes/b")
        site.until(lambda: all("as node" in site.log(name) for name in "ab"))
        yield site


def command(process):
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def family(site, *names):
    """Return the processes of some programs and all that they started: number -> command."""
    found = [p for name in names for p in processes.tree(site.processes[name].pid)]
    return {process: command(process) for process in found}


def left(before):
    """Return those of ``before`` that are still there, zombies included."""
    return {
        process: said
        for process, said in before.items()
        if Path(f"/proc/{process}").exists() and command(process) in (said, "")
    }


def test_flower_s_own_commands_run_list_show_and_stop_a_run(site):
    authority = site.folder / "keys/server/ca.pem"
    connection = Connection.make(site.folder / "flwr", site.address, authority)

    def flwr(*arguments):
        command = [program("flwr"), *arguments]
        done = subprocess.run(
            command, env=connection.environment(), capture_output=True, text=True, cwd=REPOSITORY
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def listed():
        return json.loads(flwr("list", connection.name, "--format", "json"))["runs"]

    runs = site.folder / "flower"
    settings = " ".join([*(quoted(s) for s in SETTINGS), f"output.dir='{runs}'"])
    words = f"scenario='digits' {settings}"
    answer = json.loads(
        flwr("run", ".", connection.name, "--run-config", words, "--format", "json")
    )
    assert answer["success"], answer
    number = answer["run-id"]
    site.until(lambda: any(runs.glob("*/run.json")))  # the last file of a new run
    (run,) = map(RunDir.open, runs.iterdir())
    site.until(lambda: len(run.records()) > 1)
    assert (site.folder / "passed").read_text() == "train backbone.1.bias"
    assert [(each["run-id"], each["status"]) for each in listed()] == [(number, "running")]
    site.until(lambda: "of 1000" in flwr("log", number, connection.name, "--show"))

    flwr("stop", number, connection.name)
    site.until(lambda: run.status != "running")
    assert run.status == "stopped" and run.final().round == run.records()[-1].round
    assert [each["status"] for each in listed()] == ["finished:stopped"]
    assert "Traceback" not in site.log("server")

    more = run.final().round + 1
    resume = ("--resume", run.path, "--keys", "keys", "--set", f"rounds={more}")
    site.deploy("more", *resume)
    assert site.finish("more") == 0, site.log("more")
    assert run.status == "done" and run.final().round == more


def test_what_a_server_and_a_node_write_is_their_own(site):
    written = [path for name in ("server", "a", "b") for path in (site.folder / name).rglob("*")]
    assert {"superlink.db", "log.jsonl"} <= {path.name for path in written}
    assert not [path for path in written if path.stat().st_mode & 0o077]


def quoted(setting):
    """Return a setting as TOML has it."""
    key, _, value = setting.partition("=")
    return setting if value.isdecimal() else f"{key}='{value}'"


def test_a_run_and_its_server_stop_in_order_and_go_on(site):
    words = [word for s in SETTINGS for word in ("--set", s)]
    site.deploy("deploy", "digits", "--keys", "keys", *words)
    site.until(lambda: len(site.records()) > 1)
    site.start("stop", "stop", site.run)
    assert site.finish("stop") == 0, site.log("stop")
    assert site.finish("deploy") == 0, site.log("deploy")
    run = RunDir(site.run)
    ended = site.last()
    assert (run.status, run.final().round, run.latest().round) == ("stopped", ended, ended)
    site.start("status", "status", site.run)
    assert site.finish("status") == 0 and "stopped" in site.log("status")

    site.deploy("again", "--resume", site.run, "--keys", "keys")
    site.until(lambda: site.last() > ended)
    assert f"resume: round {ended + 1} is next" in site.told()
    before = family(site, "server")
    assert len(before) == 2, before  # the SuperLink and the run
    site.start("other", "server", "--address", site.address)
    assert site.finish("other") == 2
    assert f"process {site.processes['server'].pid} (" in site.log("other")

    os.kill(site.processes["server"].pid, signal.SIGTERM)
    assert site.finish("server") == 0, site.log("server")
    site.finish("again")
    assert not left(before) and run.status == "stopped"
    assert run.final().round == run.latest().round == site.last() > ended

    for name in "ab":
        before = family(site, name)
        assert len(before) == 2, before  # the node and its worker
        os.kill(site.processes[name].pid, signal.SIGTERM)
        assert site.finish(name) == 0, site.log(name)
        assert not left(before)
