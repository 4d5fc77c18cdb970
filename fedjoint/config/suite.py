"""A suite: named comparisons that are run together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fedjoint.config.load import load
from fedjoint.config.section import Section
from fedjoint.errors import ANYTHING, UserError, choose, said
from fedjoint.registry import find, registered


class ComparisonConfig(Section):
    """One comparison: what ``fedjoint compare`` is given."""

    scenario: str = Field(description="a registered scenario, or a TOML file")
    set: list[str] = Field([], description="settings of the scenario, such as rounds=10")
    seeds: int | None = Field(None, ge=1, description="how many; default: the suite's")
    tune: int | None = Field(None, ge=0, description="trials for each arm; default: the suite's")
    tune_over: list[str] = Field([], description="beside the learning rate, tune this")
    full: bool = Field(False, description="also a centralised model per task")
    whole: bool = Field(False, description="also per task and jointly with shared heads")
    groups: str | None = Field(None, description="groups of tasks, or auto")


class SuiteConfig(Section):
    """Comparisons that are run together."""

    name: str = Field(description="names the folder")
    seeds: int = Field(5, ge=1, description="seeds of each comparison")
    tune: int = Field(4, ge=0, description="trials for each arm of each comparison")
    smoke: list[str] = Field(
        ["rounds=2"], description="settings of every comparison with --smoke, which tries the suite"
    )
    comparisons: dict[str, ComparisonConfig] = Field(description="name -> comparison", min_length=1)


def suite_config(name: str) -> SuiteConfig:
    """Return a suite by registered name, ``module:function`` or TOML file.

    Raises:
        UserError: there is none, or a setting of it is wrong.
    """
    if name.endswith(".toml") or Path(name).is_file():
        return _checked(load(name), name)
    if ":" not in name and name not in registered("suites"):
        error = choose("suite", name, registered("suites"))
        raise UserError(f"{error}; or give a TOML file")
    try:
        return _checked(find("suites", name)(), name)
    except UserError:
        raise
    except ANYTHING as error:  # whatever the user names may raise anything
        raise UserError(f"suite {name!r}: {said(error)}") from error


def _checked(tree: Mapping[str, Any], source: str) -> SuiteConfig:
    try:
        found = SuiteConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = " and ".join(", ".join(m.model_fields) for m in (SuiteConfig, ComparisonConfig))
        hint = f"; keys are {known}" if first["type"] == "extra_forbidden" else ""
        raise UserError(f"{source}: {key}: {first['msg']}{hint}") from None
    for each in (found.name, *found.comparisons):
        if Path(each).name != each or each.startswith("."):
            raise UserError(f"{source}: {each!r} names a folder: write letters, digits and -")
    return found
