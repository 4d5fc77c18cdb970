"""Scenarios by name or file, with settings overridden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjoint.config.load import check, load, override, put
from fedjoint.config.schema import Config
from fedjoint.errors import ANYTHING, UserError, choose, said
from fedjoint.registry import find, registered


def scenario_config(scenario: str, settings: Sequence[str], **flags: Any) -> Config:
    """Return the configuration of a scenario, with flags and settings applied, in this order.

    Args:
        scenario: a registered name, ``module:function`` or a TOML file.
        settings: ``key.path=value`` texts.
        flags: ``table__key=value``; None is left out.

    Raises:
        UserError: there is no such scenario, or a setting is wrong.
    """
    tree: Mapping[str, Any]
    if scenario.endswith(".toml") or Path(scenario).is_file():
        tree = load(scenario)
    elif ":" in scenario or scenario in registered("scenarios"):
        tree = _made(scenario, find("scenarios", scenario))
    else:
        error = choose("scenario", scenario, registered("scenarios"))
        raise UserError(f"{error}; or give a TOML file")
    return changed(tree, settings, scenario, **flags)


def changed(tree: Mapping[str, Any], settings: Sequence[str], source: str, **flags: Any) -> Config:
    """Return the configuration of a tree of settings, with flags and settings applied.

    Args:
        tree: of a scenario.
        settings: ``key.path=value`` texts.
        source: where the tree is from, for errors.
        flags: ``table__key=value``; None is left out.

    Raises:
        UserError: a setting is wrong.
    """
    own = override(tree, [])
    for flag, value in flags.items():
        if value is not None:
            put(own, flag.split("__"), value, source)
    return check(override(own, settings), source)


def _made(name: str, make: Any) -> Mapping[str, Any]:
    try:
        tree = make()
    except UserError:
        raise
    except ANYTHING as error:  # whatever the user names may raise anything
        raise UserError(f"scenario {name!r}: {said(error)}") from error
    if not isinstance(tree, Mapping):
        raise UserError(
            f"scenario {name!r} returns {type(tree).__name__}: return a dict of settings"
        )
    return tree
