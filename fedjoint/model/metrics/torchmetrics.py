"""A metric of the package torchmetrics, by name, where its states are sums.

It sees the known labels alone, of places or words one by one, as ``[m]`` classes beside
probabilities ``[m, classes]``, or those of the second of two ``[m]`` where its name begins with
``Binary``; where it begins with ``Multilabel``, as labels beside probabilities ``[m, k]``; else as
targets ``[m, k]``, or ``[m]`` of one.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
from torch import Tensor

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.metric import Metric
from fedjoint.model.positions import by_position, known_positions


def torchmetrics(name: str, options: dict[str, Any] | None = None) -> Metric:
    """Return the metric.

    Args:
        name: of a class of torchmetrics, such as ``MulticlassCohenKappa``.
        options: its own arguments, such as ``num_classes``.

    Raises:
        UserError: torchmetrics is not installed, has no such metric, or its states are no sums.
    """
    metric = _made(name, options or {})
    defaults: dict[str, Tensor] = {state: t.clone() for state, t in metric.metric_state.items()}

    def sums(output: Tensor, y: Tensor) -> Tensor:
        metric.to(output.device)
        return torch.stack([_states(metric, name, *own) for own in zip(output, y, strict=True)])

    def value(row: Tensor) -> float:
        if not row[0] > 0:
            return math.nan
        metric.to(row.device)
        metric.reset()
        parts = row[1:].split([default.numel() for default in defaults.values()])
        for (state, default), part in zip(defaults.items(), parts, strict=True):
            setattr(metric, state, part.view(default.shape).to(default.dtype))
        metric._update_count = 1  # else it warns that nothing was measured
        found = metric.compute()
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise UserError(f"torchmetrics {name} gives several numbers: have it average them")
        return float(found)

    def statistics(output: Tensor, y: Tensor) -> Tensor:
        return sums(output[:, None], y[:, None])

    return Metric(name, statistics, value, bool(metric.higher_is_better), sums=sums)


def _made(name: str, options: dict[str, Any]) -> Any:
    try:
        import torchmetrics as package
        from torchmetrics import classification, regression
        from torchmetrics.utilities.data import dim_zero_sum
    except ImportError:
        raise UserError(
            "metrics by name need torchmetrics; pip install 'fedjoint[metrics]'"
        ) from None
    known = {
        n: getattr(part, n) for part in (package, classification, regression) for n in dir(part)
    }
    known = {
        n: made
        for n, made in known.items()
        if isinstance(made, type) and issubclass(made, package.Metric)
    }
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ": see its documentation"
        raise UserError(f"torchmetrics has no metric {name!r}{hint}")
    try:
        metric: Any = known[name](**options)
    except ANYTHING as error:  # whatever it says of its arguments
        raise UserError(f"torchmetrics {name}: {said(error)}") from error
    if not isinstance(metric, package.Metric):
        raise UserError(f"torchmetrics {name}: {type(metric).__name__} is no metric; take another")
    name = type(metric).__name__
    states: dict[str, Any] = metric.metric_state
    for state, default in states.items():
        if metric._reductions[state] is not dim_zero_sum or default.any():
            raise UserError(
                f"torchmetrics {name} cannot be added up over clients, as its {state!r} is no sum: "
                "take another, such as one with thresholds where it has them"
            )
    if metric.higher_is_better is None:
        raise UserError(f"torchmetrics {name} does not say whether more is better: take another")
    return metric


def _states(metric: Any, name: str, output: Tensor, y: Tensor) -> Tensor:
    """Return ``[1 + k]`` float64, the count and the metric's states of some examples."""
    metric.reset()
    output, y = by_position(output, y)
    known = known_positions(y)
    output, y = output[known].double(), y[known]
    if len(y):
        metric.update(*_seen(name, output, y))
    for state, default in metric._defaults.items():
        if getattr(metric, state).shape != default.shape:
            raise UserError(
                f"torchmetrics {name} cannot be added up over clients, as its {state!r} grows with "
                "the number of targets: give each target a task"
            )
    states = [state.double().flatten() for state in metric.metric_state.values()]
    return torch.cat([known.any(1).sum()[None].double(), *states])


def _seen(name: str, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a metric of torchmetrics takes, from outputs and labels that are known."""
    if not y.is_floating_point():
        probabilities = output.softmax(-1)
        return (probabilities[:, 1] if name.startswith("Binary") else probabilities), y
    if name.startswith("Multilabel"):
        return output.sigmoid(), y.long()
    return (output[:, 0], y[:, 0].double()) if y.shape[1] == 1 else (output, y.double())
