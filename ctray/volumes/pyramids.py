"""Coarse levels of volumes that are stored without: made in one pass, kept beside the run.

The archive is never changed, and the finest levels are of no use to localization: what is kept
begins with the level next finer than the working level (with the working level itself where that
is large already), which is well under a thousandth of a volume of 24 GB.
"""

from __future__ import annotations

from ctray.core.geometry import Box, VoxelSize, as_triple
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import is_reduced_to, read_reduced
from ctray.volumes.writer import create_volume

# Names of the attributes that say how coarse the first level is, and of what source.
_FACTORS, _STAMP = "factors", "source_stamp"


def with_kept_pyramid(
    volume: Volume, url: str, working_size: int, *, stamp: str, write: bool
) -> Volume:
    """`volume` such that `read_working` takes coarse levels from `url` where its own lack.

    Parameters
    ----------
    volume
        As `open_volume` gave it.
    url
        Where its coarse levels are kept, or are to be.
    working_size
        See `Volume.read_working`.
    stamp
        Stamp of the source of `volume`, taken before any of its voxels is read; see
        `ctray.archive.source_record.stamp_of`.
    write
        Whether they are made, in one streaming pass over the volume, where they are not there or
        not of this source as it is now. Levels that are neither made nor right are not used: the
        volume's own are read, however long that takes.
    """
    if is_reduced_to(volume, working_size):
        return volume
    coarse = open_volume(url) if is_committed(url) else None
    if coarse is None or not _is_of(coarse, volume, stamp):
        if not write:
            return volume
        if coarse is not None:
            store.delete_tree(url)
        _write(volume, url, working_size, stamp)
        coarse = open_volume(url)
    volume.add_coarse(coarse, as_triple(coarse.attributes[_FACTORS], _FACTORS))
    return volume


def _is_of(coarse: Volume, volume: Volume, stamp: str) -> bool:
    """Whether kept levels are of `volume` as it is now; those of earlier versions do not tell."""
    told = coarse.attributes
    expected = {"source_url": volume.url, "shape": list(volume.shape), _STAMP: stamp}
    return all(told.get(name) == value for name, value in expected.items())


def _write(volume: Volume, url: str, working_size: int, stamp: str) -> None:
    """Reduce `volume` and write that as a volume of its own, with a pyramid, in its place."""
    voxels, factors = read_reduced(volume, working_size)
    edge = (1.0, 1.0, 1.0) if volume.voxel_size is None else volume.voxel_size.um
    size = volume.voxel_size
    where = zip(volume.origin_um, factors, edge, strict=True)
    writer = create_volume(
        url,
        shape=voxels.shape,
        dtype=voxels.dtype,
        voxel_size=size and VoxelSize.of([e * f for e, f in zip(edge, factors, strict=True)]),
        # A mean sits in the middle of the voxels that it is of; without a size, places count
        # voxels, and these are larger.
        origin_um=[(o + (f - 1) / 2 * e) / (1 if size else f) for o, f, e in where],
    )
    writer.write(Box.whole(writer.plans[0].shape), voxels)
    writer.build_pyramid()
    writer.commit(
        {
            "source_url": volume.url,
            "shape": list(volume.shape),
            _STAMP: stamp,
            _FACTORS: list(factors),
        }
    )
