"""What a phantom is asked to be: the specimen and, apart from it, the scene around it."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from ctray.core.errors import ConfigError
from ctray.core.geometry import Triple, as_triple

Kind = Literal["embryo", "fish", "multi"]
Container = Literal["none", "centred", "offset", "tilted"]
GreyType = Literal["uint8", "uint16"]
MIN_SIDE = 24


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"phantom {name} {value!r} is unknown; use one of {', '.join(choices)}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigError(
            f"phantom {name}={value} is outside [{low}, {high}]; choose a value inside"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSpec:
    """Everything around the specimen, each option on its own switch.

    Grey values are counted in contrast units: 1.0 is the step in mean grey value from medium to
    sample in a clear scan. The sample's own structure (organs, texture) has a standard deviation
    of 0.45 to 0.55 of these units, whatever the other options.

    Raises
    ------
    ConfigError
        If an option is out of its range.
    """

    medium_contrast: float = 1.0
    """Mean grey value of the sample minus that of the medium; 0.0: exactly equal means."""
    reconstruction_circle: bool = True
    """Whether everything outside the largest circle in (y, x) is constant 0."""
    container: Container = "none"
    """Tube brighter than the sample: centred, off-centre, or off-centre and tilted against z."""
    noise: float = 0.1
    """Standard deviation of the photon noise in a voxel, in contrast units."""
    rings: float = 0.0
    """Standard deviation of the ring artefacts over the radius, in contrast units."""
    cupping: float = 0.0
    """How much darker the rotation axis is than the rim, in contrast units."""
    distractors: int = 0
    """Number of bubbles and grains in the medium."""
    streaks: float = 0.0
    """Amplitude of metal-like streaks at one radius from their source, in contrast units."""
    touches_border: bool = False
    """Whether the specimen leaves the volume through a face across z."""
    empty: bool = False
    """Whether the specimen is missing."""

    def __post_init__(self) -> None:
        _check_choice("container", self.container, get_args(Container))
        _check_range("medium_contrast", self.medium_contrast, -2.0, 4.0)
        for name in ("noise", "rings", "cupping", "streaks"):
            _check_range(name, getattr(self, name), 0.0, 5.0)
        _check_range("distractors", self.distractors, 0, 200)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomSpec:
    """One phantom; everything random in it is a pure function of (seed, index).

    Raises
    ------
    ConfigError
        If a field is out of its range.
    """

    kind: Kind = "embryo"
    """Embryo of any orientation, fish head to tail along z, or 2 to 4 separate specimens."""
    size: int | Triple = 64
    """Shape (z, y, x) in voxels; one number is a cube."""
    seed: int = 0
    """Names the archive that the phantom belongs to."""
    index: int = 0
    """Number of the phantom within its archive."""
    fill: tuple[float, float] = (0.15, 0.30)
    """Range of the fraction of the volume that the box around all of the sample takes.

    It holds for the whole specimen, so where it touches the border the box inside is smaller.
    """
    scene: SceneSpec = field(default_factory=SceneSpec)
    """The scene around the specimen."""
    dtype: GreyType = "uint8"
    """Stored grey values."""
    span: float = 0.85
    """Fish: fraction of z from head to tail, up to two voxels less where it would be cut off."""
    tilt_degrees: float = 8.0
    """Fish: largest angle between its axis and z."""
    random_turn: bool = True
    """Fish: whether it is turned about z by a random angle."""
    head_first: bool = True
    """Fish: whether its head is at low z."""
    specimens: int | None = None
    """Multi: number of specimens; None draws 2 to 4."""

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, get_args(Kind))
        _check_choice("dtype", self.dtype, get_args(GreyType))
        if not isinstance(self.size, int):
            object.__setattr__(self, "size", as_triple(self.size, "phantom size"))
        for axis, n in zip("zyx", self.shape, strict=True):
            if n < MIN_SIDE:
                raise ConfigError(
                    f"phantom size {axis}={n} is below {MIN_SIDE} voxels; "
                    "fins and tails need more, choose a larger size"
                )
        low, high = (float(f) for f in self.fill)
        object.__setattr__(self, "fill", (low, high))
        if not 0.001 <= low <= high <= 0.6:
            raise ConfigError(
                f"phantom fill ({low}, {high}) must satisfy 0.001 <= low <= high <= 0.6"
            )
        if self.seed < 0 or self.index < 0:
            raise ConfigError(f"phantom seed={self.seed}, index={self.index} must not be negative")
        _check_range("span", self.span, 0.2, 0.95)
        _check_range("tilt_degrees", self.tilt_degrees, 0.0, 30.0)
        if self.specimens is not None:
            _check_range("specimens", self.specimens, 2, 4)

    @property
    def shape(self) -> Triple:
        """Shape (z, y, x) in voxels."""
        return (self.size,) * 3 if isinstance(self.size, int) else self.size

    def rng(self, purpose: str, *more: int) -> np.random.Generator:
        """Return a generator for one `purpose`, so that no option changes another one's draws."""
        key = (self.index, zlib.crc32(purpose.encode()), *more)
        return np.random.Generator(
            np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key))
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, scene nested."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scene"}
        own["size"] = list(self.shape)
        own["fill"] = list(self.fill)
        own["scene"] = {f.name: getattr(self.scene, f.name) for f in fields(self.scene)}
        return own
