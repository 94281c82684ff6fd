"""Several specimens in one volume: grouping of cells, and a tight box for each specimen.

Each of the three axes has its own maps of evidence (`ctray.learn.self_training.network`). Maps
resolve single slices along their axis; across it their cells are four pixels wide and blurred. A
gap between two specimens is visible in the maps of the axis that separates them and blurred in the
others. So the smallest evidence of the three axes separates specimens. It only assigns cells to
specimens. The faces of a specimen come from its own cells of the maps, and are as sharp as the
faces of a volume.

Legend of array names: N slices, H, W cells of a map, Z, Y, X places of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.geometry import AXES, Triple
from ctray.learn.self_training.network import CELL, AxisMaps
from ctray.localization.params import PARAMS
from ctray.localization.profile_faces import FacePair, FacesByAxis, find_faces, outermost

FloatArray = npt.NDArray[np.float64]
MapArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.int32]

_PARAMS = PARAMS.specimen
_EVERYWHERE = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceMaps:
    """Evidence of every cell of every slice along all three axes of one working level.

    Parameters
    ----------
    maps
        Maps of the axes z, y, x: (N, H, W) float32. A map covers a square canvas with the slice in
        its middle, at `CELL` pixels per cell.
    shape
        Shape of the working level, (z, y, x).
    bias
        Bias of the self-trained network, which is added to a slice's evidence.
    """

    maps: AxisMaps
    shape: Triple
    bias: float

    @property
    def needed(self) -> float:
        """Evidence at which one cell alone makes a slice's probability of sample 0.5."""
        return 0.5 * math.log(self.maps[0][0].size) - self.bias

    def pool(self, axis: int, cells_NHW: MapArray) -> FloatArray:
        """Log-odds (N,) of slices across `axis` from the evidence of their cells.

        Uses the same formula as `SelfTrainedNetwork.pool`.
        """
        flat = cells_NHW.reshape(len(cells_NHW), -1).astype(np.float64)
        pooled: FloatArray = np.logaddexp.reduce(flat, axis=1)
        return pooled - 0.5 * math.log(flat.shape[1]) + self.bias

    def offset(self, axis: int) -> int:
        """Pixels of the canvas in front of the first voxel of `axis`."""
        side = CELL * int(self.maps[0].shape[1])
        return (side - self.shape[axis]) // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Specimen:
    """One of several specimens.

    Parameters
    ----------
    profiles
        Log-odds that a slice holds this specimen, by axis.
    faces
        Faces by axis, in slices of the working level.
    """

    profiles: dict[str, FloatArray]
    faces: FacesByAxis


def find_specimens(evidence: EvidenceMaps, threshold: float) -> tuple[Specimen, ...]:
    """Specimens of a volume, the largest first; empty if there are fewer than two.

    Parameters
    ----------
    evidence
        Maps of the working level.
    threshold
        Log-odds above which a slice holds sample.
    """
    step = -(-max(evidence.shape) // _PARAMS.max_places)
    grid_ZYX = evidence_grid(evidence, step)
    labels = label_specimens(grid_ZYX, evidence.needed + threshold, step)
    count = int(labels.max(initial=0))
    if count < 2:
        return ()
    near = _near(labels, step)
    return tuple(_specimen(evidence, labels, near, n, threshold, step) for n in range(1, count + 1))


def faces_around(faces: FacesByAxis, specimens: Sequence[FacesByAxis]) -> FacesByAxis:
    """Faces of a volume, moved outward to enclose all its specimens."""
    around = dict(faces)
    for name in AXES:
        found = [f for f in (faces.get(name), *(s[name] for s in specimens)) if f is not None]
        if found:
            around[name] = outermost(found)
    return around


def evidence_grid(evidence: EvidenceMaps, step: int) -> MapArray:
    """Least evidence of the three axes at places `step` voxels apart, (Z, Y, X) float32."""
    places = [(np.arange(-(-n // step)) + 0.5) * step for n in evidence.shape]
    least: MapArray | None = None
    for axis, maps_NHW in enumerate(evidence.maps):
        thick = _mean_of(maps_NHW, step)
        for across, other in enumerate(_others(axis), start=1):
            cells = (places[other] + evidence.offset(other)) / CELL - 0.5
            thick = _at(thick, across, cells)
        grid = np.moveaxis(thick, 0, axis)
        least = grid if least is None else np.minimum(least, grid)
    assert least is not None
    return least


def label_specimens(grid_ZYX: MapArray, needed: float, step: int) -> LabelArray:
    """Label the specimens of a grid of evidence: 1 for the largest, 0 for background.

    Parameters
    ----------
    grid_ZYX
        Evidence at each place, float32.
    needed
        Minimum evidence of a place of the sample.
    step
        Voxels between places.
    """
    sample = grid_ZYX > needed
    if not sample.any():
        return np.zeros(grid_ZYX.shape, np.int32)
    level = float(np.median(grid_ZYX[sample]))
    background = float(np.median(grid_ZYX[~sample])) if not sample.all() else needed
    high = max(needed, background + _PARAMS.sample * (level - background))
    bridge = background + _PARAMS.bridge * (level - background)
    labels, count = ndimage.label(grid_ZYX > high, _EVERYWHERE)
    labels = _join_near(labels.astype(np.int32), count, grid_ZYX > bridge, step)
    return _by_size(_join_small(labels, step))


def _others(axis: int) -> tuple[int, int]:
    return ((1, 2), (0, 2), (0, 1))[axis]


def _mean_of(maps_NHW: MapArray, step: int) -> MapArray:
    """Mean of every `step` slices; the last mean may cover fewer."""
    starts = np.arange(0, len(maps_NHW), step)
    counts = np.diff([*starts, len(maps_NHW)]).astype(np.float32)
    mean: MapArray = np.add.reduceat(maps_NHW, starts, axis=0)
    mean /= counts[:, None, None]
    return mean


def _at(values: MapArray, axis: int, places: FloatArray) -> MapArray:
    """Values at `places` along an axis: linear between two values, constant beyond the ends."""
    last = values.shape[axis] - 1
    bounded = np.clip(places, 0, last)
    low = np.floor(bounded).astype(int)
    shape = [1, 1, 1]
    shape[axis] = -1
    weight = (bounded - low).astype(np.float32).reshape(shape)
    between: MapArray = np.take(values, low, axis=axis) * (1 - weight)
    between += np.take(values, np.minimum(low + 1, last), axis=axis) * weight
    return between


def _join_near(labels: LabelArray, count: int, bridge: BoolArray, step: int) -> LabelArray:
    """Join nearby pieces if some evidence bridges the whole gap between them.

    A gap of a single place is always bridged.
    """
    if count < 2:
        return labels
    near = ndimage.distance_transform_edt(labels == 0) * step <= _PARAMS.gap / 2
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, count + 1), 3)
    between = (lowest <= count) & (lowest != highest)
    joined, _ = ndimage.label((labels > 0) | between | (near & bridge), _EVERYWHERE)
    return np.where(labels > 0, joined, 0).astype(np.int32)


def _join_small(labels: LabelArray, step: int) -> LabelArray:
    """Join small pieces to the nearest specimen within reach; drop the other small pieces."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    least = max(_PARAMS.min_places, _PARAMS.min_size * sizes.max(initial=0))
    if sizes.max(initial=0) < least:
        return np.where(labels > 0, 1, 0).astype(np.int32)
    large = np.where((sizes >= least)[labels], labels, 0)
    distance, nearest = ndimage.distance_transform_edt(large == 0, return_indices=True)
    owners = large[tuple(nearest)]
    joined = labels.copy()
    for small in np.flatnonzero((sizes > 0) & (sizes < least)):
        own = labels == small
        closest = int(np.argmin(np.where(own, distance, np.inf)))
        reached = distance.flat[closest] * step <= _PARAMS.reach
        joined[own] = owners.flat[closest] if reached else 0
    return joined


def _by_size(labels: LabelArray) -> LabelArray:
    """Labels from 1 on, the largest first; equal sizes keep the order of the grid."""
    sizes = np.bincount(labels.ravel())
    present = [n for n in range(1, len(sizes)) if sizes[n]]
    firsts = {n: int(np.argmax(labels.ravel() == n)) for n in present}
    order = sorted(present, key=lambda n: (-sizes[n], firsts[n]))
    renamed = np.zeros(len(sizes), np.int32)
    renamed[order] = np.arange(1, len(order) + 1)
    return renamed[labels]


def _near(labels: LabelArray, step: int) -> LabelArray:
    """Label of the nearest specimen within the margin, for every place of the grid; else 0."""
    distance, indices = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    owner: LabelArray = np.where(distance * step <= _PARAMS.margin, labels[tuple(indices)], 0)
    return owner


def _specimen(
    evidence: EvidenceMaps,
    labels: LabelArray,
    near: LabelArray,
    number: int,
    threshold: float,
    step: int,
) -> Specimen:
    """Profiles and faces of one specimen; cells of other specimens are replaced by background."""
    profiles: dict[str, FloatArray] = {}
    faces: FacesByAxis = {}
    for axis, name in enumerate(AXES):
        maps_NHW = evidence.maps[axis]
        nothing = np.float32(np.quantile(maps_NHW, _PARAMS.nothing))
        own = _on_maps(near == number, evidence, axis, step)
        profiles[name] = evidence.pool(axis, np.where(own, maps_NHW, nothing))
        places = np.flatnonzero((labels == number).any(axis=_others(axis)))
        core = (float(places[0] + 1) * step, float(places[-1]) * step)
        faces[name] = _holding(find_faces(profiles[name], threshold), core, threshold)
    return Specimen(profiles=profiles, faces=faces)


def _on_maps(own_ZYX: BoolArray, evidence: EvidenceMaps, axis: int, step: int) -> BoolArray:
    """Whether each cell (N, H, W) of an axis' maps contains a set place of a grid."""
    num_slices, side, _ = evidence.maps[axis].shape
    cells: BoolArray = np.moveaxis(own_ZYX, axis, 0)[np.arange(num_slices) // step]
    for across, other in enumerate(_others(axis), start=1):
        pixels = np.arange(side * CELL) - evidence.offset(other)
        places = np.clip(pixels // step, 0, own_ZYX.shape[other] - 1)
        by_pixel = np.take(cells, places, axis=across)
        cells = np.logical_or.reduceat(by_pixel, np.arange(side) * CELL, axis=across)
    return cells


def _holding(faces: FacePair | None, core: tuple[float, float], threshold: float) -> FacePair:
    """Faces moved outward to enclose all places of the specimen except the outermost.

    A box that is too large is better than a cut specimen.
    """
    low, high = min(core), max(core)
    if faces is None:
        widths = (float(CELL), float(CELL))
        return FacePair(start=low, stop=high, widths=widths, thresholds=(threshold, threshold))
    beyond = (max(0.0, faces.start - low), max(0.0, high - faces.stop))
    return replace(
        faces,
        start=min(faces.start, low),
        stop=max(faces.stop, high),
        widths=(faces.widths[0] + beyond[0], faces.widths[1] + beyond[1]),
    )
