"""Flower's own simulation gives the numbers of ours."""

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import fedjoint
from fedjoint._util import processes
from fedjoint.config.scenario import scenario_config
from fedjoint.engines.flower import superlink
from fedjoint.errors import UserError
from fedjoint.runs.directory import RunDir

# In one process with a cluster of Ray, which other runs of Flower would join.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("cluster")]

REPOSITORY = Path(__file__).parents[3]
SETTINGS = ["rounds=2", "data.clients=6", "local.epochs=1"]


def inline(folder, *more):
    settings = [*SETTINGS, *more, f"output.dir={folder}"]
    config = scenario_config("digits", settings, engine__name="inline")
    return fedjoint.simulate(config).backbone


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_engine_flower(tmp_path):
    rule = "strategy.name=pcgrad"  # which has clients tell their tasks apart
    settings = [*SETTINGS, rule, f"output.dir={tmp_path}"]
    config = scenario_config("digits", settings, engine__name="flower")
    rounds = []
    result = fedjoint.simulate(config, callbacks=[rounds.append])
    assert [record.round for record in rounds] == [1, 2]
    assert rounds[-1].evaluation["test"]
    assert len(result.heads()) == 6
    assert_same(inline(tmp_path / "inline", rule), result.backbone)


def test_the_repository_is_a_flower_app(tmp_path):
    words = " ".join([*SETTINGS, "strategy.name='fedavgm'", f"output.dir='{tmp_path / 'runs'}'"])
    with superlink(tmp_path / "link") as connection:
        run = ("run", str(REPOSITORY), connection.name)
        with pytest.raises(UserError, match="Invalid run configuration"):
            connection.call(*run, "--run-config", "ruonds=5")
        workers = ("--federation-config", "num-supernodes=2 client-resources-num-cpus=1")
        number = connection.call(*run, "--run-config", words, *workers)["run-id"]
        while not (status := connection.status(str(number))).startswith("finished"):
            time.sleep(1.0)
        assert status == "finished:completed", (tmp_path / "link/superlink.log").read_text()
    (folder,) = (tmp_path / "runs").iterdir()
    assert_same(inline(tmp_path / "inline"), RunDir.open(folder).final().backbone)


def test_a_run_that_is_stopped_leaves_no_process(tmp_path):
    settings = [word for s in [*SETTINGS, "rounds=10000"] for word in ("--set", s)]
    code = "from fedjoint.cli import main; main()"
    command = [sys.executable, "-c", code, "simulate", "digits", "--engine", "flower", *settings]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    while not any(file.stat().st_size for file in tmp_path.glob("runs/*/metrics.jsonl")):
        assert run.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
    started = processes.tree(run.pid)
    assert len(started) > 5
    run.terminate()
    assert run.wait() == 128 + signal.SIGTERM
    (folder,) = (tmp_path / "runs").iterdir()
    assert RunDir.open(folder).info["status"] == "stopped"
    while not math.isnan(processes.megabytes(started)):  # what was killed is gone in no time
        time.sleep(0.1)
