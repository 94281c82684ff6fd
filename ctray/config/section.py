"""The base of all sections of a configuration, and the types that they share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Binds(StrEnum):
    """The part of a run that a setting decides, and so whether it may change in an existing run.

    Each field names it in its annotation, or else its section does; see `ctray.config.binding`.
    """

    TRAINING = "training"
    """The weights of the pretext task, and so every box. Another value needs another run folder."""
    SELF_TRAINING = "self-training"
    """The boxes of the pretext task, and so the weights of self-training. Another value needs
    another run folder."""
    BOX = "box"
    """The boxes. Another value needs another run folder once the run has boxes."""
    CROP = "crop"
    """The crops. The run keeps another value and cuts its crops again."""
    VOLUMES = "volumes"
    """The choice of volumes. The run keeps another value."""
    NOTHING = "nothing"
    """How and where processes run. Another value is used by the current command alone."""
    COMMAND = "command"
    """One command. The value is never taken from a run."""


# Limits catch typing errors that would take years of work or all memory.
MOST_STEPS = 10_000_000
MOST_WORKERS = 4096
Positive = Annotated[int, Field(ge=1, le=65_536)]
Length = Annotated[float, Field(gt=0, le=1e6)]
Step = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Rate = Annotated[float, Field(gt=0, le=10)]
# YAML reads a bare `off` as false.
Switch = Annotated[Literal["auto", "off"], BeforeValidator(lambda v: "off" if v is False else v)]


class Section(BaseModel):
    """A section: frozen, without unknown keys, each field described by the docstring below it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
