"""Boxes, values of the six faces of a box, and voxel sizes, always in (z, y, x) order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from ctray.core.errors import GeometryError

Triple = tuple[int, int, int]
AXES = ("z", "y", "x")

T = TypeVar("T")
U = TypeVar("U")

# OME-NGFF 0.5, section "axes": unit names of length in common use, in micrometres.
_MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "inch": 25400.0,
}


def as_triple(values: Sequence[int], what: str) -> Triple:
    """Return three ints in (z, y, x) order, or raise `GeometryError` naming `what`."""
    if len(values) != 3:
        raise GeometryError(f"{what} {tuple(values)} has {len(values)} values; give z, y, x")
    z, y, x = (int(v) for v in values)
    return (z, y, x)


class AxisFaces(NamedTuple, Generic[T]):
    """One value for each of the six faces of a box: the low and the high face of each axis.

    It is a tuple in the order z0, z1, y0, y1, x0, x1. JSON files hold it as a list in that order.
    """

    z0: T
    z1: T
    y0: T
    y1: T
    x0: T
    x1: T

    @classmethod
    def of(cls, values: Sequence[T], what: str = "faces") -> AxisFaces[T]:
        """Faces from six values in order; `GeometryError` that names `what` for another number."""
        if len(values) != 6:
            raise GeometryError(
                f"{what} {list(values)} has {len(values)} values; give one for each of the six "
                f"faces {', '.join(FACES)}"
            )
        return cls(*values)

    @classmethod
    def both_sides(cls, values: Sequence[T]) -> AxisFaces[T]:
        """Faces with the same value on both sides of an axis; `values` are of z, y, x."""
        z, y, x = values
        return cls(z, z, y, y, x, x)

    @property
    def pairs(self) -> tuple[tuple[T, T], tuple[T, T], tuple[T, T]]:
        """The (low, high) values of the axes z, y, x."""
        return ((self.z0, self.z1), (self.y0, self.y1), (self.x0, self.x1))

    def map(self, function: Callable[[T], U]) -> AxisFaces[U]:
        """Faces with `function` of each value."""
        return AxisFaces(*map(function, self))

    def combine(self, other: AxisFaces[T], function: Callable[[T, T], U]) -> AxisFaces[U]:
        """Faces with `function` of the two values of each face, such as the larger one."""
        return AxisFaces(*map(function, self, other))


FACES = AxisFaces._fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Half-open voxel index ranges [start, stop) in (z, y, x).

    Parameters
    ----------
    start, stop
        First index inside and first index outside, one per axis.
    level
        Pyramid level that the indices count in; 0 is full resolution.

    Raises
    ------
    GeometryError
        If a start is negative or not below its stop.
    """

    start: Triple
    stop: Triple
    level: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", as_triple(self.start, "box start"))
        object.__setattr__(self, "stop", as_triple(self.stop, "box stop"))
        for axis, a, b in zip(AXES, self.start, self.stop, strict=True):
            if a < 0:
                raise GeometryError(f"box start {axis}={a} is negative; boxes count from 0")
            if b <= a:
                raise GeometryError(f"box {axis} range [{a}, {b}) is empty; stop must exceed start")
        if self.level < 0:
            raise GeometryError(f"box level {self.level} is negative; level 0 is full resolution")

    @classmethod
    def whole(cls, shape: Sequence[int], *, level: int = 0) -> Box:
        """Box of a whole volume of `shape` (z, y, x) voxels."""
        return cls(start=(0, 0, 0), stop=as_triple(shape, "shape"), level=level)

    @classmethod
    def from_ranges(cls, ranges: Sequence[Sequence[int]], *, level: int = 0) -> Box:
        """Box of three (start, stop) pairs, as JSON files have them."""
        return cls(
            start=as_triple([r[0] for r in ranges], "box start"),
            stop=as_triple([r[1] for r in ranges], "box stop"),
            level=level,
        )

    @property
    def shape(self) -> Triple:
        """Extent in voxels, (z, y, x)."""
        return as_triple([b - a for a, b in zip(self.start, self.stop, strict=True)], "shape")

    @property
    def num_voxels(self) -> int:
        """Number of voxels inside."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index for an array of the same level."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return (z, y, x)

    @property
    def ranges(self) -> list[list[int]]:
        """Three [start, stop] pairs, as JSON files have them."""
        return [[a, b] for a, b in zip(self.start, self.stop, strict=True)]

    @classmethod
    def from_faces(cls, faces: AxisFaces[int], *, level: int = 0) -> Box:
        """Box whose low faces are its starts and whose high faces are its stops."""
        return cls.from_ranges(faces.pairs, level=level)

    @property
    def faces(self) -> AxisFaces[int]:
        """The six coordinates: starts and stops of the axes."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return AxisFaces(z0, z1, y0, y1, x0, x1)

    def check_inside(self, shape: Sequence[int]) -> Box:
        """Return self; raise `GeometryError` if a stop exceeds `shape` (same level)."""
        for axis, b, n in zip(AXES, self.stop, shape, strict=True):
            if b > n:
                raise GeometryError(
                    f"box stop {axis}={b} exceeds extent {n} at level {self.level}; "
                    "clip with Box.clip()"
                )
        return self

    def clip(self, shape: Sequence[int]) -> Box:
        """Part inside a volume of `shape`; `GeometryError` if that is empty."""
        stop = [min(b, n) for b, n in zip(self.stop, shape, strict=True)]
        return Box(start=self.start, stop=as_triple(stop, "box stop"), level=self.level)

    def expand(self, margins: int | AxisFaces[int], shape: Sequence[int]) -> Box:
        """Box that is larger by a margin on each face, clipped to `shape`.

        Parameters
        ----------
        margins
            Voxels of this level: one number for all faces, or one for each.
        shape
            Shape of the level, (z, y, x).
        """
        if isinstance(margins, int):
            margins = AxisFaces.both_sides([margins] * 3)
        ranges = [
            (max(0, start - low), min(extent, stop + high))
            for (start, stop), (low, high), extent in zip(
                self.ranges, margins.pairs, shape, strict=True
            )
        ]
        return Box.from_ranges(ranges, level=self.level)

    def intersection(self, other: Box) -> Box | None:
        """Common part, or None where the boxes do not overlap."""
        self._check_level(other)
        start = [max(a, b) for a, b in zip(self.start, other.start, strict=True)]
        stop = [min(a, b) for a, b in zip(self.stop, other.stop, strict=True)]
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            return None
        return Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"), level=self.level)

    def union(self, other: Box) -> Box:
        """Smallest box that holds both."""
        self._check_level(other)
        start = [min(a, b) for a, b in zip(self.start, other.start, strict=True)]
        stop = [max(a, b) for a, b in zip(self.stop, other.stop, strict=True)]
        return Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"), level=self.level)

    def iou(self, other: Box) -> float:
        """Intersection over union of the two volumes, in [0, 1]."""
        common = self.intersection(other)
        inside = common.num_voxels if common else 0
        return inside / (self.num_voxels + other.num_voxels - inside)

    def contains(self, other: Box) -> bool:
        """Whether `other` lies wholly inside."""
        return self.intersection(other) == other

    def shift(self, offset: Sequence[int]) -> Box:
        """Box moved by `offset` (z, y, x) voxels."""
        return Box(
            start=as_triple([a + o for a, o in zip(self.start, offset, strict=True)], "start"),
            stop=as_triple([b + o for b, o in zip(self.stop, offset, strict=True)], "stop"),
            level=self.level,
        )

    def snap_outward(self, stride: Sequence[int], shape: Sequence[int]) -> Box:
        """Smallest box around this one whose faces are multiples of `stride` or the volume's end.

        Chunks and pyramid cells that a crop keeps whole need such faces.
        """
        start = [a // s * s for a, s in zip(self.start, stride, strict=True)]
        stop = [min(n, -(-b // s) * s) for b, s, n in zip(self.stop, stride, shape, strict=True)]
        return Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"), level=self.level)

    def to_level(self, level: int, factors: Sequence[int], shape: Sequence[int]) -> Box:
        """Box at another level: exact when refined, snapped outward when coarsened.

        Parameters
        ----------
        level
            Level to convert to.
        factors
            Voxels of the finer of the two levels per voxel of the coarser, one per axis.
        shape
            Shape of the target level, which clips the result (level n has ceil(n / factor)
            voxels, so the last coarse voxel can reach past the end of the finer level).
        """
        if level <= self.level:
            start = [a * f for a, f in zip(self.start, factors, strict=True)]
            stop = [b * f for b, f in zip(self.stop, factors, strict=True)]
        else:
            start = [a // f for a, f in zip(self.start, factors, strict=True)]
            stop = [-(-b // f) for b, f in zip(self.stop, factors, strict=True)]
        box = Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"), level=level)
        return box.clip(shape)

    def _check_level(self, other: Box) -> None:
        if self.level != other.level:
            raise GeometryError(
                f"boxes of level {self.level} and level {other.level} do not compare; "
                "convert one with Box.to_level()"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelSize:
    """Physical edge length of a voxel, in micrometres, (z, y, x).

    Raises
    ------
    GeometryError
        If an edge is not a positive finite number.
    """

    z_um: float
    y_um: float
    x_um: float

    def __post_init__(self) -> None:
        for axis, value in zip(AXES, self.um, strict=True):
            if not (math.isfinite(value) and value > 0):
                raise GeometryError(f"voxel size {axis}={value} µm must be positive and finite")

    @classmethod
    def of(cls, edges: Sequence[float], unit: str = "micrometer") -> VoxelSize:
        """Voxel size of three edges (z, y, x), or one for all, in `unit` (an OME-NGFF name)."""
        factor = micrometres_per(unit)
        values = [float(e) * factor for e in edges]
        if len(values) == 1:
            values *= 3
        if len(values) != 3:
            raise GeometryError(f"voxel size {tuple(edges)} needs one value or z, y, x")
        return cls(z_um=values[0], y_um=values[1], x_um=values[2])

    @property
    def um(self) -> tuple[float, float, float]:
        """Edges in micrometres, (z, y, x)."""
        return (self.z_um, self.y_um, self.x_um)

    def scaled(self, factors: Sequence[float]) -> VoxelSize:
        """Voxel size after pooling by `factors` (z, y, x)."""
        return VoxelSize.of([e * f for e, f in zip(self.um, factors, strict=True)])


def micrometres_per(unit: str) -> float:
    """Micrometres in one `unit`; `GeometryError` for a unit that is no length we know."""
    aliases = {
        "µm": "micrometer",
        "um": "micrometer",
        "micron": "micrometer",
        "nm": "nanometer",
        "mm": "millimeter",
        "cm": "centimeter",
        "m": "meter",
        "å": "angstrom",
    }
    name = unit.strip().lower().replace("metre", "meter").replace("\u03bc", "µ")
    name = aliases.get(name, name)
    # People write "microns"; "ms" is no length.
    if name not in _MICROMETRES and name.endswith("s") and len(name) > len("inch"):
        name = aliases.get(name[:-1], name[:-1])
    if name not in _MICROMETRES:
        known = ", ".join(sorted(_MICROMETRES))
        raise GeometryError(f"unit {unit!r} is no known length; use one of {known}")
    return _MICROMETRES[name]


def tiles(shape: Sequence[int], tile: Sequence[int]) -> Iterator[Box]:
    """Boxes of a regular grid of `tile` voxels over `shape`, the last ones clipped, z slowest."""
    counts = [range(-(-n // t)) for n, t in zip(shape, tile, strict=True)]
    for index in itertools.product(*counts):
        start = [i * t for i, t in zip(index, tile, strict=True)]
        stop = [min(n, a + t) for n, a, t in zip(shape, start, tile, strict=True)]
        yield Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"))
