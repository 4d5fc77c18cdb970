"""The data of a node: its own in place of the run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjoint.config.load import check, load
from fedjoint.config.plugins import plugins
from fedjoint.config.schema import Config
from fedjoint.errors import OpenError, UserError

#: Settings whose plug-ins no node makes.
_OF_THE_SERVER = {"strategy", "engine", "callbacks"}


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
    if not (data.is_file() or data.is_dir()):  # a device or a pipe may have no end
        raise UserError(f"{data}: no such file or folder; fix --data")
    file = {"source": {"options": {"path": str(data.resolve())}}}
    own: dict[str, Any] = load(data) if data.suffix == ".toml" else file
    if tasks:
        own["task_mix"] = [list(tasks)]
    return own


def check_registered(config: Config, method: str, own: Mapping[str, Any]) -> None:
    """Refuse a run that names code beyond what is installed here as a plug-in.

    Args:
        config: the run's, as it is on this node.
        method: its local method.
        own: see :func:`own_data`.

    Raises:
        OpenError: it does.
    """
    trusted = _OF_THE_SERVER | ({"data.source"} if _names_source(own) else set())
    named = {"problem": config.problem, "local.method": method}
    found = [(setting, plugin.name) for setting, plugin in plugins(config)]
    for setting, name in [*named.items(), *found]:
        if setting not in trusted and name is not None and ":" in name:
            raise OpenError(
                f"{setting} names code by its place, which would run beside this node's own data: "
                "its operator may allow that by fedjoint client --foreign-code, or install it "
                "as a plug-in"
            )


def _names_source(own: Mapping[str, Any]) -> bool:
    """Return whether a node's own settings say which source reads its data."""
    source = own.get("source")
    return isinstance(source, str) or "name" in (source or ())


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
