"""Small maps beside a volume, such as its uncertainty, each in its physical place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Triple, as_triple
from ctray.volumes.multiscale import LevelPlan
from ctray.volumes.volume import Volume
from ctray.volumes.writer import create_volume


def write_map(
    url: str,
    values: npt.NDArray[np.float32],
    *,
    volume: Volume,
    cell: Triple,
    offset: Triple,
    factors: Triple,
    provenance: dict[str, Any],
) -> None:
    """Write a map of a volume's working level as an OME-Zarr of one level.

    Parameters
    ----------
    url
        Where it goes.
    values
        One value per cell, float32, (z, y, x).
    volume
        Volume of the map: gives voxel size and origin.
    cell
        Working-level voxels per cell, (z, y, x).
    offset
        Working-level voxel where the first cell begins, (z, y, x); below 0 if outside.
    factors
        Level-0 voxels per working-level voxel, (z, y, x).
    provenance
        `ctray` attributes.

    Raises
    ------
    OutputExistsError
        If something is at `url`.
    """
    edge = (cell[0] * factors[0], cell[1] * factors[1], cell[2] * factors[2])
    # Positions are centres of voxels; the centre of a cell lies half a cell after its start.
    first = [o * f + (e - 1) / 2 for o, f, e in zip(offset, factors, edge, strict=True)]
    shape = as_triple(values.shape, "shape")
    writer = create_volume(
        url,
        shape=shape,
        dtype=values.dtype,
        voxel_size=volume.voxel_size,
        origin_um=volume.origin_um,
        plain_scale=volume.plain_scale,
        levels=[LevelPlan(shape=shape, factors=edge, offset=(first[0], first[1], first[2]))],
    )
    for box in writer.grid.shards():
        writer.write(box, values[box.slices])
    writer.commit(provenance)
