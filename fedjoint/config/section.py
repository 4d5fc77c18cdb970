"""The bases of the configuration's tables."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class Section(BaseModel):
    """A table of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        # To Python, true is also the number one.
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("true and false are for switches, which this is not")
        return value


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
