"""Partial sums on the machines of a cluster: the bits of one process, few rows, no way to hang."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("cluster")]

MACHINES, SETS = 4, 2  # machines with workers, and sets of tasks
BLOCKS = 14  # 13 are asked for, and each set of tasks has seven
SUMMED = [
    "means",
    "few at a time",
    "weights by task",
    "deviations",
    "scaled down",
    "several backbones",
]
DEATHS = ["a worker dies", "a machine dies", "a machine dies as replies arrive"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return name -> what was found of a run: a cluster takes its time."""
    script = Path(__file__).with_name("cluster_runs.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("runs")],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "name", [*SUMMED, "all are at work", "small rows", "rows of clients", *DEATHS]
)
def test_a_run_on_a_cluster_has_the_bits_of_one_process(found, name):
    assert found[name]["same"] and found[name]["diagnostics"]


@pytest.mark.parametrize("name", SUMMED)
def test_a_machine_sends_a_row_for_each_set_of_tasks(found, name):
    # Each client of two tasks, of one set, has one deviation.
    sets = SETS + 1 if name in ("deviations", "scaled down") else SETS
    machines = 2 if name == "few at a time" else MACHINES
    rows = found[name]["rows"]
    assert len(rows) == 3 and max(rows) <= sets * machines
    # A sum is of float64, as long as two rows.
    most = sets * machines * 8 * found[name]["parameters"]
    assert max(found[name]["bytes"]) <= most


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("small rows", [BLOCKS] * 3),
        ("rows of clients", []),  # there are no means
    ],
)
def test_elsewhere_all_rows_travel(found, name, rows):
    assert found[name]["rows"] == rows


def test_where_all_workers_of_a_machine_are_late_with_something_its_rows_travel(found):
    assert found["all are at work"]["rows"][1] == BLOCKS


def test_a_client_that_fails_changes_the_weights_of_others_and_is_named(found):
    run = found["weights by task"]
    assert run["trained"] == [39, 39, 39]
    assert [failure["client"] for failure in run["failed"]] == [3]


def test_means_are_summed_for_each_of_several_backbones(found):
    assert found["several backbones"]["backbones"] == 3


@pytest.mark.parametrize("name", DEATHS)
def test_whoever_dies_with_rows_is_replaced_and_the_run_goes_back(found, name):
    run = found[name]
    assert run["generation"] >= 1  # twice where Ray hears late that a machine is gone
    assert run["trained"] == [40, 40, 40]
    assert run["actors"] == 4  # the workers, and nobody else


def test_no_actor_is_left(found):
    assert found["actors left"] == 0


def test_a_cluster_without_room_for_the_workers_of_a_dead_machine_ends_the_run(found):
    assert found["no room"].startswith("Ray cannot place 4 workers")
