"""How many CPU cores this process may use, which can be fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def allowed_cores(cgroup: Path = _CGROUP, environment: Mapping[str, str] = os.environ) -> int:
    """Return the cores that affinity, the container and the job scheduler leave to this process.

    Args:
        cgroup: where the kernel says what a container may use.
        environment: has ``SLURM_CPUS_PER_TASK`` in a job of Slurm's.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, others do not
    most = [len(affinity(0)) if affinity else os.cpu_count() or 1]
    quota = _quota(cgroup)
    if quota is not None:
        most.append(math.ceil(quota))
    slurm = environment.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit():
        most.append(int(slurm))
    return max(1, min(most))


def _quota(cgroup: Path) -> float | None:
    """Return the share of CPU time that the container may take, in cores; None: all of it."""
    try:
        if (cgroup / "cpu.max").exists():  # version 2
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            folder = cgroup / "cpu"
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
