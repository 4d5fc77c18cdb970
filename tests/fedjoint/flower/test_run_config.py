"""Every setting is a key of Flower's run configuration."""

import tomllib
from pathlib import Path

import pytest

from fedjoint.config.scenario import scenario_config
from fedjoint.config.schema import Config
from fedjoint.config.section import Section
from fedjoint.errors import UserError
from fedjoint.flower.run_config import run_to_resume, settings

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))


def flat(table, prefix=""):
    """Return a tree as Flower flattens it."""
    return {
        key: value
        for name, entry in table.items()
        for key, value in (
            flat(entry, f"{prefix}{name}.") if isinstance(entry, dict) else {prefix + name: entry}
        ).items()
    }


def keys(section, prefix=""):
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


DEFAULTS = flat(PROJECT["tool"]["flwr"]["app"]["config"])


def test_pyproject_has_every_key_and_no_other():
    assert list(DEFAULTS) == ["scenario", "run-dir", *keys(Config)]


def test_by_default_it_is_the_scenario():
    assert settings(DEFAULTS) == [] and run_to_resume(DEFAULTS) == ""


def test_values_of_every_kind_arrive():
    given = {
        "rounds": 5,
        "local.optimiser.lr": 0.5,
        "local.path": "sequential",
        "strategy.name": "fedprox",
        "strategy.options": "{mu = 0.5}",
        "data.task_mix": '[["digit"], ["ink"]]',
    }
    config = scenario_config("digits", settings(DEFAULTS | given))
    assert (config.rounds, config.local.optimiser.lr, config.local.path) == (5, 0.5, "sequential")
    assert (config.strategy.name, config.strategy.options) == ("fedprox", {"mu": 0.5})
    assert config.data.task_mix == [["digit"], ["ink"]]


def test_a_resumed_run_keeps_its_settings():
    assert run_to_resume(DEFAULTS | {"run-dir": "runs/a"}) == "runs/a"
    with pytest.raises(UserError, match="leave out rounds=5"):
        run_to_resume(DEFAULTS | {"run-dir": "runs/a", "rounds": 5})
