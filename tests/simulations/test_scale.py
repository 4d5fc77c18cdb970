"""The table of simulated machines."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
def test_rounds_on_simulated_machines_are_measured():
    few = ["--machines", "1,2", "--clients", "6", "--rounds", "1"]
    command = [sys.executable, "-m", "fedjoint.simulations.scale", *few]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("│ ").split("│") for line in done.stdout.splitlines() if "│" in line]
    assert [row[0].strip() for row in rows] == ["1", "2"]
    assert all(float(row[1]) > 0 for row in rows)
    assert all(int(row[4]) > 0 and float(row[5]) > 0 for row in rows)
