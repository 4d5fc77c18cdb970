"""``fedjoint doctor``."""

from __future__ import annotations

import sys
from pathlib import Path

from fedjoint.cli import checkup
from fedjoint.cli.common import console, say

_STYLE = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor_command() -> None:
    """Check this machine (versions, Ray, GPUs, ports, disk, data), and say what cures it."""
    failed = 0
    for look in (
        checkup.versions,
        checkup.ray_starts,
        checkup.ports,
        lambda: checkup.disk(Path.cwd()),
        checkup.data,
    ):
        for finding in look():
            console.print(f"{finding.level:<5}", style=_STYLE[finding.level], end="")
            say(f"{finding.text}; {finding.cure}" if finding.cure else finding.text)
            failed += finding.level == "fail"
    if failed:
        sys.exit(1)
