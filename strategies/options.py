"""Checks of the options that strategies take; every failure is one line for the user."""

from __future__ import annotations

from math import inf, isfinite

from fedjoint.errors import UserError, choose


def number(
    option: str,
    value: float,
    *,
    least: float = -inf,
    most: float = inf,
    above: float = -inf,
    below: float = inf,
) -> float:
    """Return ``value`` if it is a number with least <= value <= most and above < value < below.

    Raises:
        UserError: it is not; the line names the option and what is allowed.
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not isfinite(value) or not (least <= value <= most and above < value < below):
        bounds = [(">=", least), (">", above), ("<=", most), ("<", below)]
        allowed = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if isfinite(bound))
        raise UserError(f"option {option} = {value!r}: a number {allowed}".rstrip() + " is allowed")
    return float(value)


def whole(option: str, value: int, least: int) -> int:
    """Return ``value`` if it is a whole number >= ``least``.

    Raises:
        UserError: it is not; the line names the option and what is allowed.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"option {option} = {value!r}: a whole number >= {least} is allowed")
    return value


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is among ``allowed``.

    Raises:
        UserError: it is not; the line names the option, what is allowed and the nearest match.
    """
    if value not in allowed:
        raise choose(f"value of option {option}", str(value), allowed)
    return value


def switch(option: str, value: bool) -> bool:
    """Return ``value`` if it is true or false.

    Raises:
        UserError: it is not; the line names the option.
    """
    if not isinstance(value, bool):
        raise UserError(f"option {option} = {value!r}: true or false is allowed")
    return value
