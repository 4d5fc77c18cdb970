"""The bases of the configuration's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

_WHOLE, _FURTHEST = 2**63 - 1, 1e30


class Section(BaseModel):
    """A table of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        # To Python, true is also the number one.
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("true and false are for switches, which this is not")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_control(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.isprintable():
            raise ValueError("it has a character that is not printable")
        return value

    @field_validator("*")
    @classmethod
    def _no_giant(cls, value: Any, info: ValidationInfo) -> Any:
        for number in _numbers(cls.model_fields[str(info.field_name)].annotation, value):
            if abs(number) > (_WHOLE if isinstance(number, int) else _FURTHEST):
                raise ValueError("it is beyond 64 bits, or what float32 can compute with")
        return value


def _numbers(annotation: Any, value: Any) -> list[int | float]:
    """Return the numbers in the value of a field: itself, or those of a list or a table of them.

    Options are left to the plug-in, and the fields of an inner table to that.
    """
    if get_origin(annotation) is dict and isinstance(value, Mapping):
        value = [] if Any in get_args(annotation) else list(value.values())
    values = value if isinstance(value, (list, tuple)) else [value]
    return [each for each in values if isinstance(each, (int, float))]


class Plugin(Section):
    """A plug-in and its options, ``{name = "topk", options = {fraction = 0.1}}``; or its name."""

    name: str = Field(
        description="built-in or registered name, package.module:Name or file.py:Name"
    )
    options: dict[str, Any] = Field(
        {}, description="its options; fedjoint show NAME tells which there are"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value
