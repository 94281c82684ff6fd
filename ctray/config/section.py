"""What all sections of a configuration have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(gt=0)]
# YAML reads a bare `off` as false.
Switch = Annotated[Literal["auto", "off"], BeforeValidator(lambda v: "off" if v is False else v)]


class Section(BaseModel):
    """Frozen, and without keys that nobody knows; docstrings below the fields describe them."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
