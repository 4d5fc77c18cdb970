"""Flower's run configuration (``flwr run --run-config``) as a run of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fedjoint.errors import UserError

_OWN = ("scenario", "run-dir")


def settings(values: Mapping[str, bool | float | int | str]) -> list[str]:
    """Return the settings among the values of a run configuration, as ``key.path=value`` texts.

    Flower has every key in it, and an empty text where the user gave none. Tables and lists are
    texts in TOML, such as ``strategy.options='{server_lr = 2}'``.
    """
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
        if key not in _OWN and value != ""
    ]


def run_to_resume(values: Mapping[str, bool | float | int | str]) -> str:
    """Return the run directory to continue; empty for a new run.

    Raises:
        UserError: there are settings beside it.
    """
    path, changed = str(values["run-dir"]), settings(values)
    if path and changed:
        raise UserError(f"run-dir continues a run with its own settings: leave out {changed[0]}")
    return path
