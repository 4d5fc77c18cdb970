"""The data of a node: its own in place of the run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjoint.config.load import check, load
from fedjoint.config.schema import Config
from fedjoint.errors import OpenError, UserError


def own_data(data: Path | None, tasks: Sequence[str]) -> dict[str, Any]:
    """Return the settings of ``data`` that replace the run's on this node.

    Args:
        data: a file or folder of examples, or a TOML file with a ``data`` table's settings; None
            for clients of the run's own data.
        tasks: those of this node's clients; empty for all.

    Raises:
        UserError: there is no such file, or tasks are named without data.
    """
    if data is None:
        if tasks:
            raise UserError("--tasks belongs to --data: without it, the run's own data decides")
        return {}
    if not data.exists():
        raise UserError(f"{data}: no such file or folder; fix --data")
    file = {"source": {"options": {"path": str(data.resolve())}}}
    own: dict[str, Any] = load(data) if data.suffix == ".toml" else file
    if tasks:
        own["task_mix"] = [list(tasks)]
    return own


def check_registered(settings: Mapping[str, Any], method: str, own_source: bool) -> None:
    """Refuse a run that names code beyond what is installed here as a plug-in.

    Args:
        settings: the run's.
        method: its local method.
        own_source: whether the node has a data source of its own, in place of the run's.

    Raises:
        OpenError: it does.
    """
    named = {
        "problem": settings["problem"],
        "local.method": method,
        "model.backbone": settings["model"]["backbone"]["name"],
        "balance": settings["balance"]["name"],
        "strategy.compression": settings["strategy"]["compression"]["name"],
        **{f"metrics.{task}": metric["name"] for task, metric in settings["metrics"].items()},
    }
    if not own_source:
        named["data.source"] = settings["data"]["source"]["name"]
    for setting, name in named.items():
        if name is not None and ":" in name:
            raise OpenError(
                f"{setting} names code by its place, which would run beside this node's own data: "
                "its operator may allow that by fedjoint client --foreign-code, or install it "
                "as a plug-in"
            )


def with_own_data(
    settings: Mapping[str, Any], own: Mapping[str, Any], clients: Sequence[int]
) -> Config:
    """Return a run's configuration as it is on a node.

    Options of the source are added to those of the run's, where it is the same source. A file of
    several clients is divided by the run's ``client_column`` where the run's partition is natural,
    and evenly where it is not.

    Args:
        settings: the run's.
        own: see :func:`own_data`; empty where the clients are some of the run's own data.
        clients: their ids.

    Raises:
        UserError: the settings do not fit each other.
    """
    if own and settings["data"]["partition"] != "natural":
        own = {"partition": "iid", "clients": len(clients), **own}
    data = {**settings["data"], **own}
    if "source" in own:
        data["source"] = _source(settings["data"]["source"], own["source"])
    return check({**settings, "data": data}, "config for this node")


def _source(run: Mapping[str, Any], own: Any) -> Any:
    """Return the run's source with a node's own options, or the node's own source."""
    if not isinstance(own, Mapping) or own.get("name", run["name"]) != run["name"]:
        return own
    options = {**run["options"], **own.get("options", {})}
    if "path" in own.get("options", {}) and "test_path" not in own["options"]:
        options.pop("test_path", None)  # it belongs to the run's own path
    return {**run, "options": options}
