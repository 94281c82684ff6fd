"""The field of view: the region of a volume that can hold a sample.

It has two bounds: the reconstruction circle, beyond which reconstructions are constant, and the
inner wall of a container. In slices along y and x both bounds are straight edges, from which the
networks could infer the orientation of a slice. So voxels beyond them are replaced before training.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from scipy import ndimage

from ctray.config import PreprocessConfig
from ctray.preprocess.background import outer_rim
from ctray.preprocess.column import find_column
from ctray.preprocess.container import find_container
from ctray.preprocess.cylinder import Cylinder, whole_radial_profile
from ctray.preprocess.deviation import robust_deviation

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Minimum fraction of a slice outside the circle. An inscribed circle leaves 21%, a dead corner
# leaves less.
_MIN_OUTSIDE = 0.03
_MIN_AGREEMENT = 0.97
# Largest distance in voxels between a circle and nearly all of its rim. It is half a voxel for true
# circles and at least 1 for samples in clipped air.
_MAX_OFF_CIRCLE = 0.75
# Minimum fraction of a ring that must lie inside for its grey value to count. The sample may fill
# most of a smaller fraction.
_RING_FRACTION = 1 / 3
# Largest distance of a grey value that belongs to the drift, in background deviations.
_OUTLIER = 2.5


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldOfView:
    """Field of view of one volume at its working level.

    Parameters
    ----------
    circle
        Reconstruction circle; None if the reconstruction fills its slices.
    container
        Inside of the container wall; None if there is no container.
    column
        Edge of a column of medium without a wall. It is not a bound, because a sample may extend
        out of its medium. Instead, the surroundings are made as bright as the medium.
    kept
        Voxels beyond the container's wall that are connected to the sample and stay in view, bool,
        (z, y, x); None if there are none.
    kept_fraction
        Number of kept voxels, as a fraction of the voxels that stand out inside.
    """

    circle: Cylinder | None = None
    container: Cylinder | None = None
    column: Cylinder | None = None
    kept: BoolArray | None = field(default=None, repr=False, compare=False)
    kept_fraction: float = 0.0

    def mask(self, shape: tuple[int, int, int]) -> BoolArray:
        """Voxels inside, bool, `shape` (z, y, x)."""
        inside = np.ones(shape, dtype=bool)
        if self.container is not None:
            inside = self.container.mask(shape)
            if self.kept is not None:
                inside |= self.kept
        if self.circle is not None:
            inside &= self.circle.mask(shape)
        return inside

    def to_json(self) -> dict[str, Any]:
        """Receipt form: each bound as null or the numbers of a cylinder, `kept` as its fraction."""
        cylinders = {"circle": self.circle, "container": self.container, "column": self.column}
        bounds: dict[str, Any] = {
            name: None
            if bound is None
            else {key: round(getattr(bound, key), 3) for key in Cylinder.__dataclass_fields__}
            for name, bound in cylinders.items()
        }
        return bounds | {"kept_fraction": round(self.kept_fraction, 4)}

    @classmethod
    def from_json(cls, data: dict[str, Any], kept: BoolArray | None = None) -> FieldOfView:
        """Inverse of `to_json`; an empty form gives a view without bounds.

        The kept voxels are stored separately.
        """
        names = ("circle", "container", "column")
        bounds = {name: Cylinder(**data[name]) if data.get(name) else None for name in names}
        return cls(**bounds, kept=kept, kept_fraction=float(data.get("kept_fraction", 0.0)))


def find_circle(volume: FloatArray) -> Cylinder | None:
    """Reconstruction circle: voxels outside it are constant along z and connected to the corners.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x); voxels that are not finite count as outside.
    """
    finite = np.isfinite(volume)
    with np.errstate(invalid="ignore"):
        spread = np.where(finite, volume, -np.inf).max(axis=0) - np.where(
            finite, volume, np.inf
        ).min(axis=0)
    constant = (spread == 0) | ~finite.any(axis=0)
    labels, _ = ndimage.label(constant)
    corners = {int(labels[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    outside = np.isin(labels, sorted(corners)) if corners else np.zeros_like(constant)
    if outside.mean() < _MIN_OUTSIDE:
        return None
    inside = ndimage.binary_fill_holes(~outside)
    if not inside.any():
        return None
    y, x = np.nonzero(inside)
    # If the sides of the slice cut the circle, the diagonals still show its radius.
    cy, cx = (y.min() + y.max()) / 2, (x.min() + x.max()) / 2
    rim = inside & ~ndimage.binary_erosion(inside, border_value=1)
    ry, rx = np.nonzero(rim)
    if len(ry) < 8:
        return None
    # The rim's voxels lie half a voxel inside the circle, which matters in small slices.
    distances = np.hypot(ry - cy, rx - cx)
    radius = float(np.median(distances)) + 0.45
    # Air that was clipped to 0 around a round sample is also constant, but the sample's rim is not
    # a circle.
    if np.percentile(np.abs(distances - np.median(distances)), 98) > _MAX_OFF_CIRCLE:
        return None
    circle = Cylinder(center_y=float(cy), center_x=float(cx), radius=radius)
    # A reconstruction circle is centred on the axis and fills the slice. Air that was clipped to 0
    # around a tube is also constant up to the corners, but the tube does not fill the slice.
    side = min(inside.shape)
    off = np.hypot(cy - (inside.shape[0] - 1) / 2, cx - (inside.shape[1] - 1) / 2)
    if off > 0.03 * side or radius < 0.45 * side:
        return None
    agreement = (circle.mask((1, *inside.shape))[0] == inside).mean()
    if agreement < _MIN_AGREEMENT:
        return None
    # The outermost voxels are partly outside after pooling.
    return Cylinder(center_y=float(cy), center_x=float(cx), radius=radius - 1.5)


def find_field_of_view(volume: FloatArray, config: PreprocessConfig) -> FieldOfView:
    """Reconstruction circle, and container or column of medium, of a volume.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x).
    config
        Configuration: `circle` and `container` select the bounds to search.
    """
    circle = find_circle(volume) if config.circle == "auto" else None
    container, column = None, None
    if config.container == "auto" and min(volume.shape) >= 8:
        clean = np.where(np.isfinite(volume), volume, _finite_median(volume))
        grey = clean.astype(np.float32)
        container = find_container(grey, circle)
        column = None if container else find_column(grey, circle)
    if container is None:
        return FieldOfView(circle=circle, column=column)
    return FieldOfView(
        circle=circle,
        container=container.inside,
        kept=container.kept if container.kept.any() else None,
        kept_fraction=container.kept_fraction,
    )


def remove_rings(volume: FloatArray, circle: Cylinder, inside: BoolArray) -> FloatArray:
    """Volume without ring artefacts.

    The rotation task does not see rings along z. In slices along y and x, rings are stripes in
    every slice, with or without sample. The median over angles and slices keeps the sample out of
    the estimate. Only sharp changes along the radius are subtracted, so a round sample on the axis
    stays.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x).
    circle
        Reconstruction circle, around whose axis the rings lie.
    inside
        Voxels used to estimate rings, bool, same shape. They must exclude a wall that is not
        centred: it would count as a piece of a ring and leave a trace in the medium beside it.
    """
    num_radii = int(circle.radius) + 1
    known = np.where(inside, volume, np.float32(np.nan))
    profile = whole_radial_profile(known, circle, num_radii, least_fraction=_RING_FRACTION)
    fine = profile - ndimage.gaussian_filter1d(profile, 2.0, mode="nearest")
    # Near the axis a ring has too few voxels for a median.
    fine[: max(2, num_radii // 16)] = 0
    y = np.arange(volume.shape[1])[:, None] - circle.center_y
    x = np.arange(volume.shape[2])[None, :] - circle.center_x
    distance = np.hypot(y, x)
    correction = np.interp(distance, np.arange(num_radii), fine, right=0.0)
    cleaned: FloatArray = (volume - correction[None]).astype(np.float32)
    return cleaned


def remove_drift(volume: FloatArray, inside: BoolArray, degree: int = 4) -> FloatArray:
    """Volume without the slow drift of grey values, such as cupping or uneven embedding medium.

    A slice and its twin share their drift, so the network could infer the orientation of an empty
    slice from it. The drift is a polynomial in z, y, x. It is fitted in a few rounds, without
    outliers, so that a sample brighter or darker than its medium leaves no halo.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite inside.
    inside
        Field of view, bool, same shape; voxels outside are returned unchanged.
    degree
        Total degree of the polynomial.
    """
    # A coarse grid is enough for a slow drift, and it averages the noise out.
    step = max(1, max(volume.shape) // 32)
    grid = (slice(step // 2, None, step),) * 3
    weight = ndimage.uniform_filter(inside.astype(np.float32), 2 * step + 1)[grid]
    grey = ndimage.uniform_filter(np.where(inside, volume, 0), 2 * step + 1)[grid]
    known = inside[grid] & (weight > 0.5)
    terms = _polynomial_terms(degree)
    if known.sum() < 8 * len(terms):
        return volume
    values = grey[known] / weight[known]
    axes = [
        np.arange(n)[g] / max(1, n - 1) * 2 - 1 for n, g in zip(volume.shape, grid, strict=True)
    ]
    basis = [legendre.legvander(axis, degree) for axis in axes]
    columns = np.stack([_outer(basis, term)[known] for term in terms], axis=1)
    # The rim of the field of view is mostly medium, so outliers are measured there. The polynomial
    # starts as a constant, so that it never bends towards a large sample.
    rim = outer_rim(inside)[grid][known]
    if not rim.any():
        rim = np.ones(len(values), dtype=bool)
    least = 1e-3 * float(np.ptp(values))
    factors = np.zeros(len(terms))
    factors[0] = np.median(values[rim])
    for order in range(degree + 1):
        rest = np.abs(values - columns @ factors)
        trusted = rest <= max(robust_deviation(rest[rim], _OUTLIER), least)
        used = np.array([sum(term) <= order for term in terms])
        factors[:] = 0
        factors[used], *_ = np.linalg.lstsq(columns[trusted][:, used], values[trusted], rcond=None)
    factors[0] = 0  # the mean grey value stays
    full = [legendre.legvander(np.linspace(-1, 1, n), degree) for n in volume.shape]
    drift = sum(f * _outer(full, term) for f, term in zip(factors, terms, strict=True))
    cleaned: FloatArray = np.where(inside, volume - drift, volume).astype(np.float32)
    return cleaned


def _polynomial_terms(degree: int) -> list[tuple[int, int, int]]:
    """Exponents (z, y, x) up to a total degree, the constant first."""
    terms = itertools.product(range(degree + 1), repeat=3)
    return [(i, j, k) for i, j, k in terms if i + j + k <= degree]


def _outer(basis: list[npt.NDArray[Any]], term: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    z, y, x = (b[:, n].astype(np.float32) for b, n in zip(basis, term, strict=True))
    product: npt.NDArray[np.float32] = z[:, None, None] * y[:, None] * x
    return product


def _finite_median(volume: FloatArray) -> float:
    finite = volume[np.isfinite(volume)]
    return float(np.median(finite)) if finite.size else 0.0
