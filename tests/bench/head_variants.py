"""Real scans in many variants: what must not change a box, and what may cut it.

Every variant is a pure function of the scan and of (seed, index). Voxel values are moved and
scaled as another scan of the same sample could have them; nothing is invented but the air that
fills what comes into view.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage

Change = Literal["shifted", "turned", "mirrored", "cut", "scaled"]
CHANGES: tuple[Change, ...] = get_args(Change)
# Largest shift, as a fraction of the axis, and largest fraction of the sample's extent that the
# border of a variant cuts away.
_MOST_SHIFT = 0.12
_MOST_CUT = 0.3
_CONTRASTS = (0.25, 4.0)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan with its truth.

    Parameters
    ----------
    name
        Of the sample.
    voxels
        Grey values, (z, y, x).
    sample
        Whether a voxel is sample, thin ears included, bool, same shape.
    """

    name: str
    voxels: npt.NDArray[Any]
    sample: npt.NDArray[np.bool_]


def read_scans(folder: Path) -> list[Scan]:
    """Scans of a folder, each a folder with `volume.tif`, `mask.tif` and `meta.json`."""
    scans = []
    for meta in sorted(folder.glob("*/meta.json")):
        scans.append(
            Scan(
                name=json.loads(meta.read_text("utf-8"))["name"],
                voxels=tifffile.imread(meta.with_name("volume.tif")),
                sample=tifffile.imread(meta.with_name("mask.tif")) > 0,
            )
        )
    return scans


def variant(scan: Scan, change: Change, *, seed: int, index: int) -> Scan:
    """A scan changed in one way; (seed, index) draws how far."""
    rng = np.random.Generator(
        np.random.Philox(np.random.SeedSequence(seed, spawn_key=(index, CHANGES.index(change))))
    )
    voxels, sample = scan.voxels, scan.sample
    if change == "shifted":
        by = [round(float(rng.uniform(-_MOST_SHIFT, _MOST_SHIFT)) * n) for n in voxels.shape]
        voxels, sample = (ndimage.shift(a, by, order=0) for a in (voxels, sample))
    elif change == "turned":
        angle = float(rng.uniform(0, 360))
        voxels = _turned(voxels, angle, order=1)
        sample = _turned(sample.astype(np.uint8), angle, order=0).astype(bool)
    elif change == "mirrored":
        axes = [axis for axis in range(3) if rng.random() < 0.5] or [0]
        voxels, sample = np.flip(voxels, axes), np.flip(sample, axes)
    elif change == "cut":
        voxels, sample = _cut(voxels, sample, rng)
    else:
        contrast = float(np.exp(rng.uniform(*np.log(_CONTRASTS))))
        offset = float(rng.uniform(-500, 5000))
        noise = rng.normal(0, 0.5, voxels.shape)
        voxels = ((voxels + noise) * contrast + offset).astype(np.float32)
    return Scan(
        name=f"{scan.name}-{change}-{index:03d}",
        voxels=np.ascontiguousarray(voxels),
        sample=np.ascontiguousarray(sample),
    )


def _turned(values: npt.NDArray[Any], angle: float, *, order: int) -> npt.NDArray[Any]:
    turned: npt.NDArray[Any] = ndimage.rotate(
        values, angle, axes=(1, 2), reshape=False, order=order
    )
    return turned


def _cut(
    voxels: npt.NDArray[Any], sample: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Both without what lies beyond a plane through the sample, at one face or two."""
    kept = [slice(0, n) for n in voxels.shape]
    for axis in rng.permutation(3)[: int(rng.integers(1, 3))]:
        others = tuple(a for a in range(3) if a != axis)
        held = np.flatnonzero(sample.any(axis=others))
        first, last = int(held[0]), int(held[-1]) + 1
        away = round(float(rng.uniform(0, _MOST_CUT)) * (last - first))
        kept[axis] = (
            slice(first + away, kept[axis].stop)
            if rng.random() < 0.5
            else slice(kept[axis].start, last - away)
        )
    return voxels[tuple(kept)], sample[tuple(kept)]
