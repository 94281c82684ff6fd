"""Writing a volume: arrays first, voxels shard by shard, the group's metadata last.

The group's metadata with the ``ctray`` attributes is the commit marker. Until it is there, no
reader of ctray sees a volume, and the next `create_volume` at the same URL starts anew. A note
beside the arrays tells such a leftover from the files of somebody else, which are never touched.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from ctray.core.errors import (
    ConfigError,
    GeometryError,
    InvalidVolumeError,
    NotFoundError,
    OutputExistsError,
)
from ctray.core.geometry import AXES, Box, Triple, VoxelSize, as_triple
from ctray.core.grid import ShardGrid
from ctray.core.parallel import bounded_map
from ctray.storage import store
from ctray.volumes.encoding import (
    ChunkEncoding,
    default_encoding,
    v2_compressor,
    v3_codecs,
    v3_serializer,
)
from ctray.volumes.manifest import MANIFEST, digest, write_manifest
from ctray.volumes.metadata import UNFINISHED
from ctray.volumes.multiscale import LevelPlan, downsample_mean, plan_levels
from ctray.volumes.sharding import assemble
from ctray.volumes.voxel_metadata import PlainScale

# What one object is made of.
_Parts = Sequence[bytes | memoryview]
_ROOT_METADATA = {"0.5": ("zarr.json",), "0.4": (".zgroup", ".zattrs")}


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelLayout:
    """How one level is laid out: its grid, and how its chunks are encoded."""

    grid: ShardGrid
    encoding: ChunkEncoding

    def cells(self, extent: Triple) -> Iterator[Box | None]:
        """Chunks of a shard clipped to `extent`, in C order; None beyond it."""
        for start in itertools.product(
            *(range(0, s, c) for s, c in zip(self.grid.shard, self.grid.chunk, strict=True))
        ):
            if any(a >= n for a, n in zip(start, extent, strict=True)):
                yield None
                continue
            stop = [min(a + c, n) for a, c, n in zip(start, self.grid.chunk, extent, strict=True)]
            yield Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"))


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
        None if unknown: then scale and origin count voxels and carry no unit.
    origin_um
        Centre of the first voxel in micrometres, (z, y, x); in voxels if `voxel_size` is None.
    num_levels
        Depth of the pyramid; by default halves until the longest side is at most 64, at most 8.
    grid
        Chunks and shards of level 0; by default 64 and 256 voxels. OME-Zarr 0.4 has no shards,
        there each chunk is its own.
    ome_version
        "0.5" (Zarr v3) or "0.4" (Zarr v2).
    fill_value
        Value of voxels that are never written.
    levels
        Levels other than halves, level 0 first; for crops that copy the source's.
    layouts
        Grid and encoding of each level in place of `grid` and `fill_value`; for the same crops.
    plain_scale
        Edge lengths as the source has them, without a unit of length, where `voxel_size` is None.

    Raises
    ------
    OutputExistsError
        If a committed volume, or anything that ctray did not begin, is at `url`.
    """
    if ome_version not in _ROOT_METADATA:
        raise ConfigError(f"ome_version {ome_version!r} is not written; use 0.5 or 0.4")
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind not in "biuf":
        raise InvalidVolumeError(f"{url}: dtype {native} is no grey value; use integers or floats")
    shape_zyx = as_triple(shape, "shape")
    level0 = grid or ShardGrid.choose(shape_zyx)
    if level0.shape != shape_zyx:
        raise GeometryError(f"grid of shape {level0.shape} does not fit volume shape {shape_zyx}")
    plans = tuple(levels) if levels is not None else plan_levels(shape_zyx, num_levels)
    url = store.normalize(url)
    _clear_leftover(url)
    store.write_json(store.join(url, UNFINISHED), {"started": datetime.now(UTC).isoformat()})
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
    origin = tuple(float(o) for o in origin_um)
    return VolumeWriter(
        url, arrays, layouts, plans, voxel_size, origin, ome_version, plain_scale=plain_scale
    )


class VolumeWriter:
    """Writes the voxels of one volume and commits it.

    Threads and processes may share the work if each writes whole shards (`grid`); `write` from
    several threads on parts of one shard loses data.
    """

    def __init__(
        self,
        url: str,
        arrays: Sequence[zarr.Array[Any]],
        layouts: Sequence[LevelLayout],
        plans: Sequence[LevelPlan],
        voxel_size: VoxelSize | None,
        origin: tuple[float, ...],
        ome_version: str,
        plain_scale: PlainScale | None = None,
    ) -> None:
        self.url = url
        self.layouts = tuple(layouts)
        self.grids = tuple(layout.grid for layout in layouts)
        self.plans = tuple(plans)
        self.ome_version = ome_version
        self._arrays = tuple(arrays)
        self._edge, self._units = _written_scale(voxel_size, plain_scale)
        # Without a unit of length, places count voxels.
        counted = (1.0, 1.0, 1.0) if voxel_size is not None else self._edge
        self._origin = tuple(o * e for o, e in zip(origin, counted, strict=True))
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
        """Bytes of voxels handed to the store so far, before compression, all levels."""
        return self._bytes_written

    def write(self, box: Box, array: npt.NDArray[Any]) -> None:
        """Write `array` to the region `box` of level 0; shard-aligned regions are fastest."""
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
        """Shard of `voxels`, clipped to the array, as its store holds it; None if all is fill."""
        layout = self.layouts[level]
        chunks = [
            layout.encoding.encode(voxels[cell.slices]) if cell is not None else None
            for cell in layout.cells(as_triple(voxels.shape, "shape"))
        ]
        return self.assemble(chunks)

    def assemble(self, chunks: Sequence[bytes | memoryview | None]) -> _Parts | None:
        """Parts of the object of encoded chunks in C order, one where the version has no shards."""
        if self.ome_version == "0.4":
            (chunk,) = chunks
            return None if chunk is None else [chunk]
        return assemble(chunks)

    def put_shard(self, level: int, shard: Box, parts: _Parts | None) -> None:
        """Write the object of a whole shard, as `encode_shard` or another array has it."""
        place = [a // s for a, s in zip(shard.start, self.grids[level].shard, strict=True)]
        key = "/".join(str(n) for n in place)
        path = f"{level}/{key}" if self.ome_version == "0.4" else f"{level}/c/{key}"
        found = None
        if parts is not None:
            # On the disk before the commit marker is: a power cut must not leave that alone.
            store.write_parts(store.join(self.url, path), parts)
            found = digest(*parts)
        with self._lock:
            if found is not None:
                self._digests[path] = found
            self._bytes_written += shard.num_voxels * self.dtype.itemsize

    def seal(self) -> str:
        """Write the manifest of all objects that are there, and return its checksum."""
        return write_manifest(self.url, self._digests)

    @staticmethod
    def sealed(checksum: str) -> dict[str, str]:
        """Attributes that name a checksum of `seal`."""
        return {"checksum": checksum, "checksum_of": MANIFEST}

    def build_pyramid(self) -> None:
        """Fill levels 1 and up by means of the level below, shard by shard.

        Memory is bounded by a few shards, whatever the volume's size.
        """
        for level in range(1, len(self.plans)):
            fine, coarse = self.plans[level - 1].factors, self.plans[level].factors
            step = as_triple([c // f for c, f in zip(coarse, fine, strict=True)], "factors")
            shard_bytes = int(np.prod(self.grids[level].shard)) * self.dtype.itemsize

            def build(shard: Box, level: int = level, step: Triple = step) -> None:
                self.write_level(level, shard, self._pooled(level, shard, step))

            # A shard, one of its source shards and the sums in float64 are held at a time.
            for _ in bounded_map(build, self.grids[level].shards(), bytes_per_item=4 * shard_bytes):
                pass

    def commit(self, provenance: dict[str, Any]) -> None:
        """Write the group's metadata with `provenance` in its ``ctray`` attributes; the last act.

        Parameters
        ----------
        provenance
            JSON values; what the volume was made from and how.
        """
        ctray = {
            **provenance,
            "ctray_version": version("ctray"),
            "committed": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        ome = self._multiscales()
        if self.ome_version == "0.5":
            attributes = {"ome": {"version": "0.5", "multiscales": [ome]}, "ctray": ctray}
            group: dict[str, Any] = {
                "zarr_format": 3,
                "node_type": "group",
                "attributes": attributes,
            }
            store.write_json(store.join(self.url, "zarr.json"), group)
        else:
            store.write_json(store.join(self.url, ".zgroup"), {"zarr_format": 2})
            image = {"multiscales": [{"version": "0.4", **ome}], "ctray": ctray}
            store.write_json(store.join(self.url, ".zattrs"), image)
        store.delete_file(store.join(self.url, UNFINISHED))

    def _pooled(self, level: int, shard: Box, step: Triple) -> npt.NDArray[Any]:
        """Mean of the source region of `shard`, read one source shard at a time."""
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

    def _multiscales(self) -> dict[str, Any]:
        """OME-NGFF multiscales entry, sections "axes" and "multiscales" of 0.4 and 0.5."""
        datasets = []
        for i, plan in enumerate(self.plans):
            scale = [e * f for e, f in zip(self._edge, plan.factors, strict=True)]
            shift = [
                o + d * e for o, d, e in zip(self._origin, plan.offset, self._edge, strict=True)
            ]
            transforms = [
                {"type": "scale", "scale": scale},
                {"type": "translation", "translation": shift},
            ]
            datasets.append({"path": str(i), "coordinateTransformations": transforms})
        return {
            "name": self.url.rsplit("/", 1)[-1],
            "axes": [
                {"name": axis, "type": "space", **({"unit": unit} if unit else {})}
                for axis, unit in zip(AXES, self._units, strict=True)
            ],
            "datasets": datasets,
            **({"type": "mean"} if self._sits_as_means() else {}),
        }

    def _sits_as_means(self) -> bool:
        """Whether every level is where a mean of level 0 sits; copied levels need not be."""
        return all(
            d == (f - 1) / 2
            for plan in self.plans
            for d, f in zip(plan.offset, plan.factors, strict=True)
        )


def _written_scale(
    voxel_size: VoxelSize | None, plain_scale: PlainScale | None
) -> tuple[Sequence[float], Sequence[str | None]]:
    """Edges of a voxel, (z, y, x), and their units, as they are written."""
    if voxel_size is not None:
        return voxel_size.um, ("micrometer",) * 3
    if plain_scale is not None:
        return plain_scale.edges, plain_scale.units
    return (1.0, 1.0, 1.0), (None, None, None)


def is_committed(url: str) -> bool:
    """Whether a volume that ctray finished is at `url`."""
    for name in ("zarr.json", ".zattrs"):
        try:
            found = store.read_json(store.join(url, name))
        except NotFoundError:
            continue
        attributes = found.get("attributes") if name == "zarr.json" else found
        if isinstance(attributes, dict) and "ctray" in attributes:
            return True
    return False


def _clear_leftover(url: str) -> None:
    """Remove what an interrupted writer left at `url`; refuse what anybody finished or owns."""
    if is_committed(url):
        raise OutputExistsError(f"{url} holds a finished volume; give another output or remove it")
    if not store.exists(url):
        return
    entries = store.list_dir(url)
    names = [entry.name for entry in entries]
    if not names:
        return
    if not any(name.startswith(UNFINISHED) for name in names):
        raise OutputExistsError(
            f"{url} holds {names[0]} and more that ctray did not write; give another output"
        )
    for entry in entries:
        # The note stays: killed in the middle of this, the next run must still know the rest.
        if entry.is_dir:
            store.delete_tree(entry.url)
        elif entry.name != UNFINISHED:
            store.delete_file(entry.url)


def grid_of(shape: Triple, level0: ShardGrid, ome_version: str) -> ShardGrid:
    """Grid of a level like that of level 0, no larger than the level needs."""
    shard = level0.chunk if ome_version == "0.4" else level0.shard
    return ShardGrid.choose(shape, chunk=level0.chunk, shard=shard)


def create_array(url: str, layout: LevelLayout, ome_version: str) -> zarr.Array[Any]:
    """Lay out one array at `url`, as Zarr v3 for OME-Zarr 0.5 and as v2 for 0.4."""
    encoding, grid = layout.encoding, layout.grid
    # A store rooted at the array itself: below a group's root, zarr would write the group's
    # metadata at once, and that is the commit marker.
    target = store.zarr_store(url, read_only=False)
    with store.mapped_errors(url, "write"):
        if ome_version == "0.4":
            return zarr.create_array(
                target,
                shape=grid.shape,
                chunks=grid.chunk,
                dtype=encoding.dtype,
                zarr_format=2,
                compressors=v2_compressor(encoding),
                fill_value=encoding.fill_value,
                # OME-NGFF 0.4, section "multiscales": level/z/y/x as nested folders.
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )
        return zarr.create_array(
            target,
            shape=grid.shape,
            chunks=grid.chunk,
            shards=grid.shard,
            dtype=encoding.dtype.newbyteorder("="),
            serializer=v3_serializer(encoding),
            compressors=v3_codecs(encoding),
            fill_value=encoding.fill_value,
            dimension_names=AXES,
        )
