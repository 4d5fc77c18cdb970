"""Every aggregator of TorchJD that needs the inner products of the updates alone."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fedjoint.errors import ANYTHING, UserError, choose, said
from fedjoint.options import Positive, Whole
from fedjoint.randomness import seeded
from fedjoint.server.updates import Updates

from ._conflict import ConflictAware, Length, Level
from ._cosines import root, unit
from ._seeding import generator

#: Aggregators that look at single parameters: of inner products they can make nothing.
_BY_PARAMETER = ("ExcessMTL", "GradDrop", "TrimmedMean")

#: Aggregators that remember what no checkpoint would hold -> ours, where there is one.
_REMEMBERING = {"GradVac": "gradvac", "NashMTL": "nashmtl", "PCD": None}

#: Base classes, and an aggregator of given coefficients: balance ``fixed`` has those.
_NO_RULES = ("Aggregator", "Constant", "GramianWeightedAggregator", "WeightedAggregator")


class TorchJD(ConflictAware):
    """Weigh updates as an aggregator of TorchJD does, such as ``torchjd[name=UPGrad]``.

    The aggregator is given ``[rows, rows]`` float64, rows with the inner products of the updates
    (their mean square length is one) in place of the ``[rows, P]`` updates: all that it needs, as
    it gives the same coefficients for either. Those that look at single parameters, and those that
    remember, are refused. An aggregator that takes preferences (``pref_vector``) is given the
    weights of the rows, so that it weighs clients by their examples as other rules do; the others
    take all rows alike.

    Args:
        name: of the aggregator, as TorchJD has it.
        options: its options, such as ``{ c = 0.5 }`` of CAGrad.
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``mean`` or ``own``, see :class:`fedjoint.strategies._conflict.ConflictAware`. Here
            ``mean`` is the default: some aggregators add rows up where others average them.
        seed: of what an aggregator draws, with the run's own and the round.

    Raises:
        UserError: TorchJD or what the aggregator needs is not installed, there is no such
            aggregator, or it does not take the options.

    Paper: Quinton and Rey, "Jacobian Descent For Multi-Objective Optimization", 2024,
    https://arxiv.org/abs/2406.16232, whose authors wrote the library, https://torchjd.org
    """

    def __init__(
        self,
        name: str,
        options: dict[str, float | int | str | bool] | None = None,
        level: Level = "task",
        server_lr: Positive = 1.0,
        length: Length = "mean",
        seed: Whole = 0,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.name, self.options, self.seed = name, options or {}, seed
        self._make()  # what is wrong with it is found before the first round

    def solve(self, gram: Tensor, weights: Tensor, rows: Updates, moved: Tensor) -> Tensor:
        aggregator = self._make()
        if hasattr(aggregator, "pref_vector"):
            aggregator.pref_vector = weights
        length, cosines = unit(gram)
        draw = int(generator(self, self.seed, rows.round).integers(2**63))
        try:
            with seeded(torch.device("cpu"), draw), torch.no_grad():
                return _coefficients(aggregator, (root(cosines) * length).T)
        except ANYTHING as error:  # another package may raise anything
            raise UserError(f"{self.name} of TorchJD: {said(error)}") from error

    def _make(self) -> Any:
        module = _module()
        usable = [n for n in module.__all__ if _is_usable(module, n)]
        name = self.name
        if name in _BY_PARAMETER and hasattr(module, name):
            raise UserError(
                f"{name} of TorchJD looks at single parameters, not at inner products alone; take "
                f"one of {', '.join(usable)}"
            )
        if name in _REMEMBERING and hasattr(module, name):
            ours = _REMEMBERING[name]
            instead = f"strategy {ours}" if ours else f"one of {', '.join(usable)}"
            raise UserError(
                f"{name} of TorchJD remembers rounds in a way that no checkpoint holds; take "
                f"{instead}"
            )
        if name not in usable:
            raise choose("aggregator of TorchJD", name, usable)
        make = getattr(module, name)
        taken = list(inspect.signature(make).parameters)
        for option in self.options:
            if option not in taken:
                raise choose(f"option of {name} of TorchJD", option, taken or ["none"])
        try:
            return make(**self.options)
        except ANYTHING as error:
            raise UserError(f"{name} of TorchJD: {said(error)}") from error


def _module() -> ModuleType:
    try:
        return importlib.import_module("torchjd.aggregation")
    except ImportError:
        raise UserError("strategy torchjd needs TorchJD; pip install 'fedjoint[torchjd]'") from None


def _is_usable(module: ModuleType, name: str) -> bool:
    made = getattr(module, name)
    return (
        issubclass(made, module.Aggregator)
        and name not in _NO_RULES
        and name not in _BY_PARAMETER
        and name not in _REMEMBERING
    )


def _coefficients(aggregator: Any, rows: Tensor) -> Tensor:
    """Return the c ``[rows]`` with which ``aggregator`` combines ``rows``."""
    if isinstance(aggregator, _module().WeightedAggregator):
        return aggregator.weighting(rows)
    # What it returns is a combination of the rows: the shortest coefficients that make it.
    return torch.linalg.lstsq(rows.T, aggregator(rows), driver="gelsd").solution
