"""What our SuperNode does otherwise than Flower's."""

import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest
from flwr.supercore import heartbeat
from flwr.supernode import fleet_http_connection, start_client_internal

from fedjoint.flower import supernode


def test_it_looks_often_at_first_and_every_three_seconds_later():
    looked, slept = iter([None] * 40 + ["message"]), []
    assert supernode.patient(lambda: next(looked), slept.append)() == "message"
    assert len(slept) == 40 and slept[0] == 0.1 and max(slept) == slept[-1] == 3.0
    assert all(pause <= 0.1 + 0.25 * sum(slept[:i]) for i, pause in enumerate(slept))
    assert supernode.patient(lambda: "at once", slept.append)() == "at once" and len(slept) == 40


def test_flower_s_supernode_gets_what_it_has_no_options_for(monkeypatch):
    @contextmanager
    def connection(address):
        yield 7, iter([None, address]).__next__, "send"

    def run():
        start_client_internal.subprocess.Popen(["flower-superexec", "--parent-pid", "1"])
        assert not started  # before the server has accepted the node
        with start_client_internal.http_request_response("message") as (node, receive, send):
            seen.append((node, receive(), send))
        seen.append(fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL)
        seen.append(heartbeat.HEARTBEAT_DEFAULT_INTERVAL)

    seen, started = [], []
    # All of these are there in Flower: setattr raises where one is not.
    monkeypatch.setattr(start_client_internal, "http_request_response", connection)
    monkeypatch.setattr(start_client_internal, "subprocess", subprocess)
    for module in (fleet_http_connection, heartbeat):
        monkeypatch.setattr(module, "HEARTBEAT_DEFAULT_INTERVAL", 30)
    monkeypatch.setattr(supernode, "flower_supernode", run)
    monkeypatch.setattr(supernode.subprocess, "Popen", started.append)
    supernode.main()
    assert seen == [(7, "message", "send"), 10, 10]
    assert started[0][:2] == [sys.executable, "-P"] and started[0][-2:] == ["--parent-pid", "1"]


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_servers_and_nodes_start_without_pytorch():
    heavy = "[m for m in ('torch', 'ray', 'scipy', 'sklearn', 'matplotlib') if m in sys.modules]"
    for module in ("cli.machines", "flower.superlink", "flower.supernode", "flower.superexec"):
        assert run(f"import sys, fedjoint.cli, fedjoint.{module}; print(*{heavy})") == []
