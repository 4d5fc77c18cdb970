"""What Nash-MTL and FairGrad solve: a combination that shares its gain fairly."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError

from ._cosines import APART, root

_STEPS, _TOLERANCE = 100, 1e-6  # of Newton's method; of the equation, relative


def fair(name: str, cosines: Tensor, shares: Tensor, alpha: float = 1.0) -> Tensor:
    """Return the a > 0 ``[rows]`` with ``cosines @ a = (shares / a) ** (1 / alpha)``.

    It is the one minimum of the convex
    ``a @ cosines @ a / 2 - sum_i shares_i ** (1 / alpha) * integral of a_i ** (-1 / alpha)``,
    found by Newton's method with backtracking.

    Args:
        name: of the rule, for errors.
        cosines: ``[rows, rows]``, of the updates. Where these cancel out they have no agreement;
            apart, they keep a finite one.
        shares: ``[rows]``, above zero: of each update in what is gained.
        alpha: above zero; the larger, the more evenly.

    Raises:
        UserError: the equation cannot be met in a round.
    """
    directions = root(cosines, APART)
    gram = directions.T @ directions
    power = 1 / alpha

    def wanted(a: Tensor) -> Tensor:
        return (shares / a) ** power

    def value(a: Tensor) -> float:
        gains = shares @ a.log() if power == 1 else a @ wanted(a) / (1 - power)
        return float((directions @ a).square().sum() / 2 - gains)

    a = shares ** (power / (1 + power))  # the solution where nothing is shared
    for _ in range(_STEPS):
        slope = directions.T @ (directions @ a) - wanted(a)
        if (slope.abs() <= _TOLERANCE / 100 * wanted(a)).all():
            break
        move = torch.linalg.solve(gram + (power * wanted(a) / a).diag(), slope)
        decrement = float(slope @ move)
        longest = float((move / a).max())
        factor = 1.0 if longest <= 0 else min(1.0, 0.99 / longest)  # a stays positive
        # The slack is rounding: close to the minimum, values no longer differ.
        before = value(a)
        slack = 1e-15 * (abs(before) + float(a.sum()))
        while value(a - factor * move) > before - factor * decrement / 4 + slack:
            factor /= 2
        a = a - factor * move
    if not (slope.abs() <= _TOLERANCE * wanted(a)).all():
        raise UserError(
            f"{name} found no bargain: lengths or weights of the updates differ too much; "
            "set strategy.weight_by = 'client', or take another strategy"
        )
    return a
