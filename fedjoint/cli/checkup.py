"""What ``fedjoint doctor`` looks at: each function returns lines about one thing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from fedjoint._util.net import listens
from fedjoint.errors import UserError

_PACKAGES = ("torch", "flwr", "ray")
_NEWEST_PYTHON = (3, 13)
# Flower's default ports; our nodes choose free ones.
_PORTS = {8000: ("fedjoint server", "--address"), 9094: ("flower-supernode", "--port")}
_SCARCE, _LITTLE = 0.5, 5.0  # GB


@dataclass(frozen=True)
class Finding:
    """One line of the check-up.

    Attributes:
        level: ``fail`` where fedjoint cannot run, ``warn`` where a part of it may not.
        text: what is so.
        cure: what to do about it; empty where all is well.
    """

    level: Literal["ok", "warn", "fail"]
    text: str
    cure: str = ""


def versions() -> Iterator[Finding]:
    """Compare Python and the packages that matter most with what fedjoint was tested with."""
    yield Finding("ok", f"fedjoint {version('fedjoint')}")
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] > _NEWEST_PYTHON:
        newest = ".".join(map(str, _NEWEST_PYTHON))
        yield Finding("warn", f"Python {python} is not tested", f"use Python {newest} or older")
    else:
        yield Finding("ok", f"Python {python}")
    wanted = {r.name: r for r in map(Requirement, requires("fedjoint") or [])}
    for name in _PACKAGES:
        yield package(wanted[name])


def package(wanted: Requirement) -> Finding:
    """Compare one installed package with what fedjoint requires of it."""
    cure = f"pip install '{wanted.name}{wanted.specifier}'"
    try:
        installed = version(wanted.name)
    except PackageNotFoundError:
        return Finding("fail", f"{wanted.name} is not installed", cure)
    if wanted.specifier.contains(installed, prereleases=True):
        return Finding("ok", f"{wanted.name} {installed}")
    text = f"{wanted.name} {installed} is not tested, {wanted.specifier} is"
    return Finding("warn", text, cure)


def ray_starts() -> Iterator[Finding]:
    """Start Ray with one worker, as ``--engine ray`` does, and compare its GPUs with PyTorch's."""
    try:
        import ray
        import torch

        from fedjoint.config.schema import EngineConfig
        from fedjoint.engines.ray import Workers

        workers = Workers(EngineConfig(workers=1))
        resources = ray.cluster_resources()
        workers.close()
    except Exception as error:  # whatever stands in its way
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        cure = "see the newest logs under /tmp/ray, or run with --engine inline"
        yield Finding("fail", f"Ray does not start: {why}", cure)
        return
    yield Finding("ok", f"Ray starts, with {resources.get('CPU', 0):g} CPUs")
    yield gpus(int(resources.get("GPU", 0)), torch.cuda.device_count(), Path("/dev/nvidia0"))


def gpus(for_ray: int, for_torch: int, device: Path) -> Finding:
    """Compare the GPUs that Ray and PyTorch count.

    Args:
        for_ray: as Ray counts them.
        for_torch: as PyTorch counts them.
        device: is there where the machine has an NVIDIA GPU.
    """
    if for_ray != for_torch:
        text = f"Ray counts {for_ray} GPUs and PyTorch {for_torch}"
        if for_torch == 0:
            return Finding("warn", text, "install a CUDA build of PyTorch that fits the driver")
        return Finding("warn", text, "check CUDA_VISIBLE_DEVICES")
    if not for_torch and device.exists():
        cure = "install a CUDA build of PyTorch that fits the driver"
        return Finding("warn", "the machine has a GPU, PyTorch does not use it", cure)
    return Finding("ok", f"{for_torch} GPUs" if for_torch else "no GPU: clients train on CPUs")


def ports() -> Iterator[Finding]:
    """Look whether the ports of a deployment are free."""
    for port, (program, option) in _PORTS.items():
        if listens("127.0.0.1", port):
            cure = f"stop what listens there, or give {program} another {option}"
            yield Finding("warn", f"port {port} is taken", cure)
        else:
            yield Finding("ok", f"port {port}, of {program}, is free")


def disk(
    folder: Path, usage: Callable[[Path], shutil._ntuple_diskusage] = shutil.disk_usage
) -> Iterator[Finding]:
    """Look whether runs can be written below ``folder``."""
    if not os.access(folder, os.W_OK):
        yield Finding("fail", f"{folder} is not writable", "run fedjoint in a folder of your own")
        return
    free = usage(folder).free / 1e9
    text = f"{free:.1f} GB free in {folder}"
    cure = "delete old runs, or write elsewhere with --set output.dir=FOLDER"
    if free < _SCARCE:
        yield Finding("fail", text, cure)
    elif free < _LITTLE:
        yield Finding("warn", text, cure)
    else:
        yield Finding("ok", text)


def data() -> Iterator[Finding]:
    """Look for the files of the scenario text, the only one that needs any."""
    from fedjoint.config.scenario import scenario_config
    from fedjoint.data.files import find

    try:
        find(scenario_config("text", []).data.source.options["path"])
    except UserError as error:
        yield Finding("warn", "the scenario text lacks its data", str(error))
    else:
        yield Finding("ok", "the scenario text has its data")
