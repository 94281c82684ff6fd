"""Writing a volume: arrays first, voxels shard by shard, the group's metadata last."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from ctray.core.errors import ConfigError, GeometryError, InvalidVolumeError
from ctray.core.geometry import Box, Triple, VoxelSize, as_triple
from ctray.core.grid import ShardGrid
from ctray.core.parallel import bounded_map
from ctray.storage import store
from ctray.volumes.encoding import default_encoding
from ctray.volumes.group import begin_group, commit_group, multiscale
from ctray.volumes.level_layout import LevelLayout, create_array, grid_of
from ctray.volumes.manifest import MANIFEST, digest, write_manifest
from ctray.volumes.metadata import READABLE_VERSIONS
from ctray.volumes.multiscale import LevelPlan, downsample_mean, plan_levels
from ctray.volumes.sharding import assemble
from ctray.volumes.voxel_metadata import PlainScale

# Parts of one object.
_Parts = Sequence[bytes | memoryview]


def create_volume(
    url: str,
    *,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    voxel_size: VoxelSize | None,
    origin_um: Sequence[float] = (0.0, 0.0, 0.0),
    num_levels: int | None = None,
    grid: ShardGrid | None = None,
    ome_version: str = "0.5",
    fill_value: float = 0,
    levels: Sequence[LevelPlan] | None = None,
    layouts: Sequence[LevelLayout] | None = None,
    plain_scale: PlainScale | None = None,
) -> VolumeWriter:
    """Lay out an OME-Zarr volume at `url` and return its writer; nothing is committed yet.

    Parameters
    ----------
    url
        Where the group goes; its parent need not exist.
    shape, dtype
        Voxels (z, y, x) and type of level 0: bool, integer or float.
    voxel_size
        None if unknown: then scale and origin count voxels and have no unit.
    origin_um
        Centre of the first voxel in micrometres, (z, y, x); in voxels if `voxel_size` is None.
    num_levels
        Levels of the pyramid; by default, halves until the longest side is at most 64, and at
        most 8.
    grid
        Chunks and shards of level 0; by default 64 and 256 voxels. OME-Zarr 0.4 has no shards: each
        chunk is an object.
    ome_version
        "0.5" (Zarr v3) or "0.4" (Zarr v2).
    fill_value
        Value of voxels that are never written.
    levels
        Levels other than halves, level 0 first; for crops that copy levels of a source.
    layouts
        Grid and encoding of each level, instead of `grid` and `fill_value`; for the same crops.
    plain_scale
        Edge lengths of the source without a unit of length, if `voxel_size` is None.

    Raises
    ------
    OutputExistsError
        If a committed volume, or anything that ctray did not begin, is at `url`.
    """
    if ome_version not in READABLE_VERSIONS:
        raise ConfigError(f"ctray writes no OME-Zarr {ome_version!r}; use 0.5 or 0.4")
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind not in "biuf":
        raise InvalidVolumeError(f"{url}: dtype {native} holds no grey values; use numbers")
    shape_zyx = as_triple(shape, "shape")
    level0 = grid or ShardGrid.choose(shape_zyx)
    if level0.shape != shape_zyx:
        raise GeometryError(f"grid of shape {level0.shape} does not fit volume shape {shape_zyx}")
    plans = tuple(levels) if levels is not None else plan_levels(shape_zyx, num_levels)
    url = store.normalize(url)
    begin_group(url)
    if layouts is None:
        grids = [grid_of(plan.shape, level0, ome_version) for plan in plans]
        layouts = [
            LevelLayout(grid=g, encoding=default_encoding(g.chunk, native, ome_version, fill_value))
            for g in grids
        ]
    arrays = [
        create_array(store.join(url, str(i)), layout, ome_version)
        for i, layout in enumerate(layouts)
    ]
    image = multiscale(
        url.rsplit("/", 1)[-1],
        plans,
        voxel_size=voxel_size,
        plain_scale=plain_scale,
        origin=[float(o) for o in origin_um],
    )
    return VolumeWriter(url, arrays, layouts, plans, image, ome_version)


class VolumeWriter:
    """Writes the voxels of one volume and commits it.

    Threads and processes may share the work if each writes whole shards (`grid`). Calling `write`
    from several threads on parts of one shard loses data.
    """

    def __init__(
        self,
        url: str,
        arrays: Sequence[zarr.Array[Any]],
        layouts: Sequence[LevelLayout],
        plans: Sequence[LevelPlan],
        image: dict[str, Any],
        ome_version: str,
    ) -> None:
        self.url = url
        self.layouts = tuple(layouts)
        self.grids = tuple(layout.grid for layout in layouts)
        self.plans = tuple(plans)
        self.ome_version = ome_version
        self._arrays = tuple(arrays)
        self._image = image
        self._bytes_written = 0
        self._digests: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def grid(self) -> ShardGrid:
        """Chunks and shards of level 0."""
        return self.grids[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return np.dtype(self._arrays[0].dtype)

    @property
    def bytes_written(self) -> int:
        """Voxel bytes written so far, before compression, of all levels."""
        return self._bytes_written

    def write(self, box: Box, array: npt.NDArray[Any]) -> None:
        """Write `array` to the region `box` of level 0; whole shards are fastest."""
        self.write_level(0, box, array)

    def write_level(self, level: int, box: Box, array: npt.NDArray[Any]) -> None:
        """Write `array` to the region `box` (in voxels of `level`).

        Raises
        ------
        GeometryError
            If the box leaves the level or the array has another shape.
        InvalidVolumeError
            If the array's dtype does not fit the volume's without loss.
        """
        box.check_inside(self.plans[level].shape)
        if array.shape != box.shape:
            raise GeometryError(f"array of shape {array.shape} does not fill box {box.ranges}")
        if not np.can_cast(array.dtype, self.dtype, casting="safe"):
            raise InvalidVolumeError(
                f"{self.url}: {array.dtype} voxels do not fit dtype {self.dtype}; convert them"
            )
        with store.mapped_errors(self.url, "write"):
            self._arrays[level][box.slices] = array
        with self._lock:
            self._bytes_written += box.num_voxels * self.dtype.itemsize

    def encode_shard(self, level: int, voxels: npt.NDArray[Any]) -> _Parts | None:
        """Encode a shard of `voxels`, clipped to the array; None if all are the fill value."""
        layout = self.layouts[level]
        chunks = [
            layout.encoding.encode(voxels[cell.slices]) if cell is not None else None
            for cell in layout.cells(as_triple(voxels.shape, "shape"))
        ]
        return self.assemble(chunks)

    def assemble(self, chunks: Sequence[bytes | memoryview | None]) -> _Parts | None:
        """Parts of the object that holds encoded chunks in C order; 0.4 has one chunk an object."""
        if self.ome_version == "0.4":
            (chunk,) = chunks
            return None if chunk is None else [chunk]
        return assemble(chunks)

    def put_shard(self, level: int, shard: Box, parts: _Parts | None) -> None:
        """Write the object of a whole shard, from `encode_shard` or from another array."""
        place = [a // s for a, s in zip(shard.start, self.grids[level].shard, strict=True)]
        key = "/".join(str(n) for n in place)
        path = f"{level}/{key}" if self.ome_version == "0.4" else f"{level}/c/{key}"
        found = None
        if parts is not None:
            # On the disk before the commit marker: a power cut must not leave the marker alone.
            store.write_parts(store.join(self.url, path), parts)
            found = digest(*parts)
        with self._lock:
            if found is not None:
                self._digests[path] = found
            self._bytes_written += shard.num_voxels * self.dtype.itemsize

    def seal(self) -> str:
        """Write the manifest of all objects, and return its checksum."""
        return write_manifest(self.url, self._digests)

    @staticmethod
    def sealed(checksum: str) -> dict[str, str]:
        """Attributes for a checksum of `seal`."""
        return {"checksum": checksum, "checksum_of": MANIFEST}

    def build_pyramid(self) -> None:
        """Fill each level from 1 up with means of the next finer level, shard by shard.

        Memory is bounded by a few shards, whatever the volume's size.
        """
        for level in range(1, len(self.plans)):
            fine, coarse = self.plans[level - 1].factors, self.plans[level].factors
            step = as_triple([c // f for c, f in zip(coarse, fine, strict=True)], "factors")
            shard_bytes = int(np.prod(self.grids[level].shard)) * self.dtype.itemsize

            def build(shard: Box, level: int = level, step: Triple = step) -> None:
                self.write_level(level, shard, self._pooled(level, shard, step))

            # A shard, one of its source shards, and the sums in float64.
            for _ in bounded_map(build, self.grids[level].shards(), bytes_per_item=4 * shard_bytes):
                pass

    def commit(self, provenance: dict[str, Any]) -> None:
        """Write the group's metadata, which makes the volume exist; call it last.

        Parameters
        ----------
        provenance
            JSON values for the ``ctray`` attributes: origin of the volume and method.
        """
        ctray = {
            **provenance,
            "ctray_version": version("ctray"),
            "committed": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        commit_group(self.url, image=self._image, ctray=ctray, ome_version=self.ome_version)

    def _pooled(self, level: int, shard: Box, step: Triple) -> npt.NDArray[Any]:
        """Means for `shard`, from its source region read one source shard at a time."""
        out = np.empty(shard.shape, self.dtype)
        source = self._arrays[level - 1]
        shape = self.plans[level - 1].shape
        part = [max(1, s // f) for s, f in zip(self.grids[level - 1].shard, step, strict=True)]
        starts = [range(a, b, p) for a, b, p in zip(shard.start, shard.stop, part, strict=True)]
        for z in starts[0]:
            for y in starts[1]:
                for x in starts[2]:
                    stop = [
                        min(a + p, b) for a, p, b in zip((z, y, x), part, shard.stop, strict=True)
                    ]
                    cell = Box(start=(z, y, x), stop=as_triple(stop, "stop"), level=level)
                    region = cell.to_level(level - 1, step, shape)
                    with store.mapped_errors(self.url, "read"):
                        fine = np.asarray(source[region.slices])
                    inside = cell.shift([-a for a in shard.start]) if any(shard.start) else cell
                    out[inside.slices] = downsample_mean(fine, step)
        return out
