"""What tuning tries: settings and their values, the same ones for every arm."""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedjoint.config.load import check, put
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Way
from fedjoint.randomness import Purpose, generator
from fedjoint.registry import find
from fedjoint.server.strategy import make_strategy

RATE = "local.optimiser.lr"

#: The range of the learning rate where none is named, as factors on the configured one.
FACTORS = (1 / 16, 4.0)

_TABLES = ("balance", "local", "model", "strategy")
_BUDGET = ("local.epochs", "local.steps", "strategy.fraction", "strategy.min_clients")
_MERGE = ("strategy.", "local.method", "local.options.")
_OPTIONS = "strategy.options."
_MOST = 1000  # trials of an arm


class Values(Protocol):
    """The values of a setting."""

    def at(self, level: float) -> Any:
        """Return the value at ``level``, in [0, 1)."""
        ...


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, each factor as likely."""

    low: float
    high: float

    def at(self, level: float) -> float:
        """Return the value at ``level``, in [0, 1)."""
        return float(f"{self.low * (self.high / self.low) ** level:.3g}")


@dataclass(frozen=True)
class Choice:
    """One of ``values``."""

    values: tuple[Any, ...]

    def at(self, level: float) -> Any:
        """Return the value at ``level``, in [0, 1)."""
        return self.values[int(level * len(self.values))]


@dataclass(frozen=True)
class Search:
    """What is tried for every arm.

    Attributes:
        trials: how many settings, those of the configuration included.
        over: setting -> its values.
    """

    trials: int
    over: Mapping[str, Values]

    def points(self, keys: Sequence[str], seed: int) -> list[dict[str, Any]]:
        """Return the values of each trial: none, which is the configuration's own, then others.

        Those others divide the values of every setting evenly, in an order of its own: a grid
        for one setting, a Latin hypercube for several.

        Args:
            keys: the settings, of those searched.
            seed: decides the orders.
        """
        count = self.trials - 1
        rng = generator(seed, Purpose.SEARCH, count)
        levels = {key: (rng.permutation(count) + 0.5) / count for key in keys}
        if len(keys) == 1:
            levels = {key: np.sort(found) for key, found in levels.items()}
        return [{}] + [{k: self.over[k].at(levels[k][i]) for k in keys} for i in range(count)]


def read_search(config: Config, trials: int, texts: Sequence[str]) -> Search:
    """Return the search that the user describes, and over the learning rate in any case.

    Args:
        config: what is tuned.
        trials: how many settings, two or more.
        texts: ``key.path=low..high`` or ``key.path=value,value``.

    Raises:
        UserError: a text is malformed, or names what must be the same for every arm.
    """
    if trials < 2:
        raise UserError(f"--tune {trials}: give 2 trials or more; one is the scenario's own")
    if trials > _MOST:
        raise UserError(f"--tune {trials}: give {_MOST} trials for each arm, or fewer")
    rate = config.local.optimiser.lr
    over: dict[str, Values] = {RATE: Range(FACTORS[0] * rate, FACTORS[1] * rate)}
    given = set()
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not key or not values:
            raise UserError(f"--tune-over {text}: write key.path=low..high or key.path=a,b,c")
        if key in given:
            raise UserError(f"--tune-over {text}: {key} is given twice")
        if key.split(".")[0] not in _TABLES or key in _BUDGET:
            raise UserError(
                f"--tune-over {text}: {key} must be the same for every arm; give a setting of "
                f"training or of the model, in {', '.join(_TABLES)}"
            )
        given.add(key)
        over[key] = _values(text, values)
    return Search(trials, over)


def trials(way: Way, config: Config, search: Search, seed: int) -> list[dict[str, Any]]:
    """Return the values of each trial of a way of training, once each is known to be in order.

    A setting of the strategy or of the local method is only searched where these run, and a
    strategy's option only where the strategy has it.

    Raises:
        UserError: a setting or a value is wrong.
    """
    points = search.points([key for key in search.over if concerns(key, way, config)], seed)
    for values in points:
        made = with_values(config, values)
        if way.merges:
            make_strategy(made)
    return points


def concerns(key: str, way: Way, config: Config) -> bool:
    """Return whether a setting makes a difference to a way of training."""
    if not key.startswith(_MERGE):
        return True
    if not way.merges or not key.startswith(_OPTIONS):
        return way.merges
    takes = inspect.signature(find("strategies", config.strategy.name)).parameters
    return key.removeprefix(_OPTIONS).split(".")[0] in takes


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return ``config`` with other values of some settings.

    Raises:
        UserError: there is no such setting, or it cannot have such a value.
    """
    tree = config.model_dump()
    for key, value in values.items():
        put(tree, key.split("."), value, f"--tune-over {key}")
    return check(tree, "--tune-over")


def value_of(config: Config, key: str) -> Any:
    """Return a setting's value; ``default`` where the configuration leaves it to the strategy."""
    found: Any = config.model_dump()
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return "default"
        found = found[part]
    return found


def _values(text: str, values: str) -> Values:
    low, dots, high = values.partition("..")
    if dots:
        try:
            found = Range(float(low), float(high))
        except ValueError:
            found = Range(math.nan, math.nan)
        if not 0 < found.low < found.high < math.inf:
            raise UserError(f"--tune-over {text}: give a range of positive numbers, say 0.01..1")
        return found
    try:
        choices = tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        choices = [part.strip() for part in values.split(",")]
    if len({repr(choice) for choice in choices}) < len(choices) or len(choices) < 2:
        raise UserError(f"--tune-over {text}: give two values or more, each once")
    return Choice(tuple(choices))
