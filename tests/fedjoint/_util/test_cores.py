"""A process counts the cores that it may use, not those of the machine."""

import os
import subprocess
import sys

import pytest

from fedjoint._util.cores import allowed_cores


@pytest.fixture(autouse=True)
def many(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("files", "environment", "cores"),
    [
        ({}, {}, 16),
        ({"cpu.max": "max 100000\n"}, {}, 16),
        ({"cpu.max": "250000 100000\n"}, {}, 3),
        ({"cpu.max": "1000 100000\n"}, {}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, {}, 16),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, {}, 4),
        ({"cpu.max": "no numbers here\n"}, {}, 16),
        ({}, {"SLURM_CPUS_PER_TASK": "5"}, 5),
        ({"cpu.max": "800000 100000\n"}, {"SLURM_CPUS_PER_TASK": "32"}, 8),
        ({}, {"SLURM_CPUS_PER_TASK": ""}, 16),
    ],
)
def test_the_least_of_all_limits_counts(files, environment, cores, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert allowed_cores(tmp_path, environment) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_process_that_is_bound_to_a_core_has_one():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from fedjoint._util.cores import allowed_cores; print(allowed_cores())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "1", found.stderr
