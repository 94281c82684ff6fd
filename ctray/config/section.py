"""What all sections of a configuration have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Binds(StrEnum):
    """What a setting decides, and so what may become of it once a run has begun.

    It stands in the annotation of a field, or of the section that the field is in; see
    `ctray.config.binding`.
    """

    TRAINING = "training"
    """What the pretext task learns, and with it every box. Another value asks for another run
    folder."""
    SELF_TRAINING = "self-training"
    """What self-training learns, from the boxes of the pretext task. Likewise."""
    BOX = "box"
    """Where boxes lie. Likewise."""
    CROP = "crop"
    """How crops are cut. Another value is kept in the run, and its crops are cut again."""
    VOLUMES = "volumes"
    """Which volumes take part. Another value is kept in the run."""
    NOTHING = "nothing"
    """How and where work is done. Another value holds for the command that says so."""
    COMMAND = "command"
    """One command alone: never taken from a run."""


# Limits keep a slip of the keyboard from asking for years of work or more memory than there is.
MOST_STEPS = 10_000_000
MOST_WORKERS = 4096
Positive = Annotated[int, Field(ge=1, le=65_536)]
Length = Annotated[float, Field(gt=0, le=1e6)]
Step = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Rate = Annotated[float, Field(gt=0, le=10)]
# YAML reads a bare `off` as false.
Switch = Annotated[Literal["auto", "off"], BeforeValidator(lambda v: "off" if v is False else v)]


class Section(BaseModel):
    """Frozen, and without keys that nobody knows; docstrings below the fields describe them."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
