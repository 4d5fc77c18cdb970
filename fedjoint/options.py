"""Options of plug-ins: the arguments of a constructor, checked against their annotations.

A plug-in says what its options are where it takes them::

    def __init__(self, radius: BelowOne = 0.5, level: Literal["task", "client"] = "task"): ...

The names below are ranges that many options share. Others are written with :mod:`pydantic`, as
``Annotated[float, Field(ge=-1, le=1)]``.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import isfinite
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from fedjoint.errors import ANYTHING, UserError, choose, said
from fedjoint.hooks import check_hooks
from fedjoint.registry import KINDS, find

T = TypeVar("T")

#: Beyond it, a factor makes float32 numbers infinite within a few rounds.
LARGEST = 1e6

#: in (0, 1e6]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
#: in [0, 1e6]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]
#: in [0, 1]
UpToOne = Annotated[float, Field(ge=0, le=1)]
#: in [0, 1)
BelowOne = Annotated[float, Field(ge=0, lt=1)]
#: in (0, 1]
Share = Annotated[float, Field(gt=0, le=1)]
#: 0, 1, 2, ..., as far as 64 bits go
Whole = Annotated[int, Field(ge=0, le=2**63 - 1)]
#: 1, 2, ..., a million
Count = Annotated[int, Field(ge=1, le=1_000_000)]

#: Nearer to zero, a number is lost among those of float32; further away, its products are.
_NEAREST, _FURTHEST = 1e-30, 1e30

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_NAMES = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    type(None): "nothing",
    Any: "anything",
}


@dataclass(frozen=True)
class Option:
    """One option of a plug-in.

    Attributes:
        name: of the option.
        annotation: its type and range; Any where it has none that can be checked.
        default: its default; ``inspect.Parameter.empty`` where it has to be given.
    """

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether the option has to be given."""
        return self.default is inspect.Parameter.empty

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        return allowed_words(self.annotation)


def options_of(make: Callable[..., Any]) -> list[Option]:
    """Return the options that ``make`` takes, in the order of its signature."""
    hints = _hints(make)
    return [
        Option(name, hints.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def construct(what: str, make: Any, options: Mapping[str, Any], *given: Any) -> Any:
    """Call ``make(*given, **options)`` once the options fit its signature and its annotations.

    Args:
        what: what comes of it, for errors.
        make: a class or a function.
        options: option -> value.
        given: what it takes before its options.

    Raises:
        UserError: it is no class or function, an option is unknown or missing, its value is not
            allowed, or ``make`` fails.
    """
    if not callable(make):
        raise UserError(f"{what}: {type(make).__name__} is no class or function; name another")
    make = partial(make, *given)
    try:
        takes = {option.name: option for option in options_of(make)}
    except ANYTHING as error:  # of some built-ins of Python nobody knows the options
        raise UserError(f"{what}: its options cannot be told: {said(error)}") from error
    for name in options:
        if name not in takes:
            raise choose(f"option of {what}", name, takes or ["none"])
    for name, option in takes.items():
        if option.required and name not in options:
            raise UserError(f"{what} needs the option {name}: {option.allowed}")
    try:
        return make(**{name: _checked(takes[name], value) for name, value in options.items()})
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except ANYTHING as error:  # a plug-in may raise anything
        raise UserError(f"{what}: {said(error)}") from error


def make_plugin(kind: str, name: str, options: Mapping[str, Any], base: type[T], *given: Any) -> T:
    """Return a new plug-in of ``kind`` by registered name or reference.

    Args:
        kind: one of :data:`fedjoint.registry.KINDS`.
        name: of the plug-in.
        options: option -> value.
        base: what the plug-in has to be; a public class of fedjoint.
        given: what it takes before its options.

    Raises:
        UserError: there is none, an option is wrong, or it is no ``base`` that can be called.
    """
    what, plugin = f"{KINDS[kind].one} {name}", find(kind, name)
    if callable(plugin) and not isinstance(plugin, type):
        has = type(plugin).__name__
        raise UserError(f"{what}: a {has} is no fedjoint.{base.__name__}; subclass that")
    check_maker(what, plugin, base)
    made: T = construct(what, plugin, options, *given)
    check_hooks(what, made, base)
    return made


def check_maker(what: str, make: Any, base: type) -> None:
    """Make sure, before it is called, that what a configuration names may make a ``base``.

    A configuration comes from elsewhere, and not every class or function may be called that it
    could name (``subprocess:Popen``).

    Args:
        what: comes of it, for errors.
        make: a subclass of ``base``, or a function.
        base: a public class of fedjoint or PyTorch.

    Raises:
        UserError: it is another class, or a function of Python's own.
    """
    public = f"{'torch.nn' if base.__module__.startswith('torch.') else 'fedjoint'}.{base.__name__}"
    if isinstance(make, type):
        if not issubclass(make, base):
            raise UserError(f"{what}: {make.__name__} is no {public}; subclass that")
    elif str(getattr(make, "__module__", "")).partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{what}: {make!r} is Python's own, and makes no {public}; name another")


def allowed_words(annotation: Any) -> str:
    """Return in words what an annotation allows."""
    base, marks = _parts(annotation)
    origin, inside = get_origin(base), get_args(base)
    if origin is Literal:
        return " or ".join(map(str, inside))
    if origin in (Union, UnionType):
        # A range beside a union is about its numbers.
        ranged = (Annotated[(part, *marks)] if marks else part for part in inside)
        return " or ".join(map(allowed_words, ranged))
    if base is list or origin in (list, Sequence):
        return f"a list{_each(inside)}"
    if base is dict or origin is dict:
        return f"a table{_each(inside[1:])}"
    if isinstance(base, type) and issubclass(base, BaseModel):
        return f"a table of {' and '.join(base.model_fields)}"
    named = _NAMES.get(base) or str(getattr(base, "__name__", base))
    return f"{named} {_range(marks)}".rstrip() if base in (int, float) else named


def _each(inside: tuple[Any, ...]) -> str:
    return f", each {allowed_words(inside[0])}" if inside else ""


def _parts(annotation: Any) -> tuple[Any, list[Any]]:
    """Return an annotation's type and what limits it."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    base, *marks = get_args(annotation)
    return base, [limit for mark in marks for limit in getattr(mark, "metadata", [mark])]


def _range(marks: list[Any]) -> str:
    return " and ".join(
        f"{sign} {_plain(bound)}"
        for mark in marks
        for key, sign in _SIGNS.items()
        if (bound := getattr(mark, key, None)) is not None
    )


def _checked(option: Option, value: Any) -> Any:
    base, _ = _parts(option.annotation)
    if get_origin(base) is Literal and value not in get_args(base):
        raise choose(f"value of option {option.name}", str(value), map(str, get_args(base)))
    _check_numbers(option.name, value)
    try:
        adapter = _adapter(option.annotation)
    except (PydanticUserError, TypeError):
        return value  # of a type that only the plug-in itself can check
    try:
        # Strict: to Python, true is also the number one, and a text may spell a number.
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise _refused(option, error) from None


def _check_numbers(name: str, value: Any) -> None:
    """Refuse numbers in ``value``, however deep, with which float32 cannot compute."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            _check_numbers(f"{name}.{place}", inner)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"option {name}: a whole number has no more than 64 bits")
    elif isinstance(value, float) and not isfinite(value):
        raise UserError(f"option {name} = {value!r}: it must be finite")
    elif isinstance(value, float) and value and not _NEAREST <= abs(value) <= _FURTHEST:
        raise UserError(
            f"option {name} = {value!r}: it must be 0, or between {_plain(_NEAREST)} and "
            f"{_plain(_FURTHEST)} in size, for float32 to compute with it"
        )


def _plain(number: float) -> str:
    if isinstance(number, int):
        return str(number)
    return f"{number:g}".replace("e+0", "e").replace("e+", "e")


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _refused(option: Option, error: ValidationError) -> UserError:
    inner = error.errors()[0]
    place = ".".join(map(str, [option.name, *inner["loc"]]))
    if inner["type"] == "literal_error":
        wrong, allowed = str(inner["input"]), inner["ctx"]["expected"].replace("'", "")
        near = difflib.get_close_matches(wrong, allowed.replace(" or ", ", ").split(", "), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return UserError(f"option {place} = {wrong!r}: {allowed} is allowed{hint}")
    return UserError(f"option {place} = {inner['input']!r}: {option.allowed} is allowed")


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of what ``make`` takes; none where they cannot be read."""
    make = make.func if isinstance(make, partial) else make
    try:
        return get_type_hints(
            make.__init__ if inspect.isclass(make) else make,
            include_extras=True,
        )
    except (NameError, TypeError, AttributeError):
        # Names that are imported for type checkers alone: the plug-in checks what it takes.
        return {}
