"""A node that is left out says why on its own screen and in its log, and what cures it."""

import json
import os
import shutil
import signal

import pytest
from support.machines import Site

from fedjoint._util.net import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def said(site, name, text):
    """Wait until a node says ``text``, on its screen and in its log."""
    site.until(lambda: text in site.log(name))
    lines = (site.folder / name / "log.jsonl").read_text("utf-8").splitlines()
    (line, *_) = [line for line in map(json.loads, lines) if text in line["message"]]
    assert {"time", "level", "logger"} <= line.keys() and line["level"] in ("WARNING", "ERROR")
    assert "not connected to 127.0.0.1:" in line["message"]


def run(site, *arguments):
    site.start("command", *arguments, "--server", site.address, "--keys", "keys")
    assert site.finish("command") == 0, site.log("command")
    return site.log("command")


def test_a_node_that_is_left_out_knows_why_and_comes_once_it_is_cured(tmp_path):
    keys, drawer = tmp_path / "keys", tmp_path / "drawer"
    with Site(tmp_path) as site:
        for folder in ("keys", "evil"):
            site.start(folder, "keys", folder, "--host", "localhost", "--nodes", "a,late")
            assert site.finish(folder) == 0
        drawer.mkdir()
        shutil.move(keys / "nodes/late/node.pub", drawer / "node.pub")
        site.server("--keys", "keys")
        site.until(lambda: "the server listens on" in site.log("server"))

        nowhere = f"127.0.0.1:{free_port()}"
        site.node("lost", "7", server=nowhere)
        site.node("open", "8")
        site.node("stray", "9", "--keys", "evil/nodes/a")
        site.node("late", "1", "--keys", "keys/nodes/late")
        site.node("a", "0", "--keys", "keys/nodes/a")
        said(site, "lost", f"{nowhere}: nobody listens there; start the server, or fix --server")
        said(site, "open", "it speaks TLS: give --keys in place of --insecure")
        said(site, "stray", "is not of the keys that the server has: copy the right one")
        said(site, "late", "it does not know this node's key, or has revoked it")
        site.until(lambda: f"connected to {site.address}, as node" in site.log("a"))

        # A key that is put into the folder is taken while the server runs.
        shutil.copy(drawer / "node.pub", keys / "nodes/late/node.pub")
        site.until(lambda: "registered node late" in site.log("server"))
        site.until(lambda: "connected again, after" in site.log("late"))
        assert "no key is new" in run(site, "register")
        assert "late" in (listed := run(site, "nodes")) and "here" in listed

        run(site, "revoke", "late")
        site.until(lambda: site.log("late").count("or has revoked it") > 1)
        assert not (keys / "nodes/late/node.pub").exists()
        assert "revoked" in run(site, "nodes")
        shutil.copy(drawer / "node.pub", keys / "nodes/late/node.pub")
        site.until(lambda: "this key was revoked" in site.log("server"))

        for name in ("lost", "open", "stray", "late", "a"):
            os.kill(site.processes[name].pid, signal.SIGTERM)
            assert site.finish(name) == 0
        assert "\x1b[" not in "".join(map(site.log, ("server", "late", "a")))
