"""The trainer divides clients into jobs; a job's random numbers and memory are its own."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest
import torch

from fedjoint.config.load import check
from fedjoint.problem import build_problem
from fedjoint.training.trainer import Trainer

CPU = torch.device("cpu")


def trainer(clients, **more):
    tree = {"data": {"clients": clients, "partition": "iid", "examples_per_client": 20}, **more}
    config = check({"model": {"backbone": {"options": {"hidden": [8]}}}, **tree})
    return Trainer(build_problem(config), config, CPU)


@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_jobs_have_the_same_tasks_and_are_even(most):
    made = trainer(40)
    made.chunk = most
    tasks = made.problem.data.tasks
    clients = np.lexsort(tasks.T)  # equal ones side by side
    found = list(made.chunks(clients))
    assert np.array_equal(np.concatenate([clients[part] for part in found]), clients)
    sizes: dict[bytes, list[int]] = {}
    for part in found:
        (own,) = np.unique(tasks[clients[part]], axis=0)
        sizes.setdefault(own.tobytes(), []).append(part.stop - part.start)
    for key, own in sizes.items():
        assert max(own) <= most and max(own) - min(own) <= 1
        assert len(own) == -(-sum(row.tobytes() == key for row in tasks) // most)
    assert list(made.chunks(clients[:0])) == []


def test_a_job_is_smaller_where_a_client_takes_more_memory():
    small, wide = (
        trainer(4),
        trainer(4, model={"backbone": {"options": {"hidden": [20_000]}}}),
    )
    parameters = 64 * 20_000 + 20_000
    assert wide.layout.size == parameters
    assert 1 < wide.chunk < small.chunk
    assert wide.chunk * 4 * parameters <= 64 << 20 < 2 * (wide.chunk + 1) * 4 * parameters
    assert trainer(4, local={"path": "sequential"}).chunk == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_not_faulted_in_again(keep):
    # In a process of its own: what others have taken and freed decides where memory comes from.
    script = f"""
import resource, torch
from fedjoint.training.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
faults = []
for _ in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)  # 64 MiB, 16,384 pages
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))  # a busy system may take pages away at any time, but not at all times
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) < 1000) is keep
