"""Comparison of a crop with the present state of its source in the archive."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.archive.importing import slabs
from ctray.archive.source_record import SourceRecord, slab_depth, voxel_bytes
from ctray.archive.source_stamp import stamp_of, what_changed
from ctray.core.errors import CtrayError, NotFoundError, one_line
from ctray.core.geometry import Box
from ctray.core.grid import ShardGrid
from ctray.core.parallel import bounded_map
from ctray.formats.opening import open_as, open_source
from ctray.formats.source import VolumeSource
from ctray.formats.zarr import ZarrSource
from ctray.volumes.volume import Volume

# Number of changed stretches of slices that a message lists.
_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceComparison:
    """Problem of a source (None without one), and the number of compared voxels."""

    problem: str | None
    voxels_compared: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How much is compared.

    Parameters
    ----------
    fraction
        Fraction of the shards, or of the slabs of an imported source; at least one is compared.
    rng
        Chooses them.
    whole
        Whether the checksums of the other slabs of an imported source are compared too.
    bytes_in_flight
        Most bytes of voxels in memory.
    """

    fraction: float
    rng: np.random.Generator
    whole: bool
    bytes_in_flight: int

    def of(self, number: int) -> list[int]:
        """Chosen indices below `number`, ascending."""
        count = max(1, math.ceil(self.fraction * number))
        return sorted(self.rng.permutation(number)[:count].tolist())


def compare_with_source(
    crop: Volume, source_url: str, record: SourceRecord | None, share: Share
) -> SourceComparison:
    """Compare level 0 of a crop with the archive's own file, voxel by voxel.

    For an imported volume, slabs outside the crop are compared with the checksums of the import.
    Zarr volumes have no checksums; a change outside the crop shows in the names, sizes and times
    of their objects.

    Parameters
    ----------
    crop
        The crop, with the box in its attributes.
    source_url
        The archive's own file, folder or Zarr volume.
    record
        Record that the run kept of the source; None without one.
    share
        How much is compared.
    """
    try:
        opened = (
            open_as(source_url, record.kind, dataset=record.dataset, within=record.within)
            if record is not None
            else open_source(source_url)
        )
        with opened as source:
            changed = _other_layout(source, crop)
            if changed is not None:
                return SourceComparison(problem=changed)
            if isinstance(source, ZarrSource):
                found = _compare_zarr(crop, source, share)
            else:
                found = _compare_slabs(crop, source, record, share)
            proven = not isinstance(source, ZarrSource) and share.fraction >= 1 and share.whole
        if found.problem is None and record is not None and not proven:
            return SourceComparison(
                problem=_stamp_problem(source_url, record),
                voxels_compared=found.voxels_compared,
            )
    except NotFoundError as error:
        return SourceComparison(problem=f"source is missing ({one_line(error)})")
    except CtrayError as error:
        return SourceComparison(problem=f"source cannot be read ({one_line(error)})")
    return found


def _other_layout(source: VolumeSource, crop: Volume) -> str | None:
    expected = crop.attributes.get("source_shape", list(source.shape))
    if list(source.shape) == expected and source.dtype == crop.dtype:
        return None
    return (
        f"source {source.url} has changed: it is {source.dtype} of shape {source.shape} instead of "
        f"{crop.dtype} of shape {tuple(expected)}"
    )


def _stamp_problem(url: str, record: SourceRecord) -> str | None:
    now = stamp_of(url, record.kind, record.dataset, record.within)
    if now == record.stamp:
        return None
    return (
        f"source {url} has changed since it was localized ({what_changed(record.stamp, now)}); "
        "the compared voxels are the same"
    )


def _compare_zarr(crop: Volume, source: ZarrSource, share: Share) -> SourceComparison:
    level, box = crop.levels[0], Box.from_ranges(crop.attributes["crop_box"])
    shards = list(ShardGrid(shape=crop.shape, chunk=level.chunk, shard=level.shard).shards())
    chosen = [shards[n] for n in share.of(len(shards))]

    def differing(shard: Box) -> int:
        theirs = source.read_box(shard.shift(box.start))
        return int(np.count_nonzero(_differ(crop.read(shard), theirs)))

    held = 4 * math.prod(level.shard) * crop.dtype.itemsize
    counts = list(
        bounded_map(differing, chosen, bytes_per_item=held, bytes_in_flight=share.bytes_in_flight)
    )
    compared = sum(shard.num_voxels for shard in chosen)
    first = next((s for s, n in zip(chosen, counts, strict=True) if n), None)
    problem = None
    if first is not None:
        problem = _differs(sum(counts), compared, source.url, first.shift(box.start).ranges)
    return SourceComparison(problem=problem, voxels_compared=compared)


def _compare_slabs(
    crop: Volume, source: VolumeSource, record: SourceRecord | None, share: Share
) -> SourceComparison:
    """Compare chosen slabs of a source: their voxels in the box, and their checksums."""
    box = Box.from_ranges(crop.attributes["crop_box"])
    known = record.slabs if record is not None else None
    depth = record.slab_depth if record is not None and known else slab_depth(source.shape[0])
    starts = range(0, source.shape[0], depth)
    inside = [n for n, z in enumerate(starts) if z < box.stop[0] and z + depth > box.start[0]]
    asked = list(range(len(starts))) if share.whole and known else inside
    chosen = {asked[n] for n in share.of(len(asked))}
    if chosen.isdisjoint(inside):
        chosen.add(inside[0])
    differing = compared = 0
    first: list[list[int]] | None = None
    changed: list[str] = []
    for number in sorted(chosen):
        start, stop = starts[number], min(starts[number] + depth, source.shape[0])
        found = _compare_slab(crop, source, box, (start, stop))
        differing, compared = differing + found.differing, compared + found.compared
        first = first or found.first
        if known and not found.differing and found.checksum != known[number]:
            changed.append(f"[{start}, {stop})")
    problem = None
    if differing:
        problem = _differs(differing, compared, source.url, first or [])
        problem += _file_of(source, first)
    elif changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        problem = (
            f"source {source.url} has changed since it was imported, outside the crop: slices "
            f"{', '.join(changed[:_NAMED])}{more}"
        )
    return SourceComparison(problem=problem, voxels_compared=compared)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slab:
    """Number of differing and compared voxels of a slab, and its checksum."""

    differing: int
    compared: int
    first: list[list[int]] | None
    checksum: str


def _compare_slab(crop: Volume, source: VolumeSource, box: Box, z: tuple[int, int]) -> _Slab:
    digest, differing, compared = hashlib.sha256(), 0, 0
    first: list[list[int]] | None = None
    for start, stop in slabs(source, *z):
        voxels = source.read(start, stop)
        digest.update(voxel_bytes(voxels))
        low, high = max(start, box.start[0]), min(stop, box.stop[0])
        if low >= high:
            continue
        part = Box(start=(low, *box.start[1:]), stop=(high, *box.stop[1:]))
        differ = _differ(
            crop.read(part.shift([-a for a in box.start])),
            voxels[part.shift((-start, 0, 0)).slices],
        )
        compared += part.num_voxels
        differing += int(np.count_nonzero(differ))
        if first is None and differ.any():
            at = low + int(np.argmax(differ.any(axis=(1, 2))))
            first = [[at, at + 1], *part.ranges[1:]]
    return _Slab(differing=differing, compared=compared, first=first, checksum=digest.hexdigest())


def _differ(
    ours: npt.NDArray[np.generic], theirs: npt.NDArray[np.generic]
) -> npt.NDArray[np.bool_]:
    # NaN counts as equal to NaN.
    differ: npt.NDArray[np.bool_] = (ours != theirs) & ~((ours != ours) & (theirs != theirs))
    return differ


def _differs(number: int, compared: int, url: str, where: list[list[int]]) -> str:
    return f"{number:,} of {compared:,} voxels differ from source {url}, first in {where}"


def _file_of(source: VolumeSource, where: list[list[int]] | None) -> str:
    """File of the first differing slice, if every slice has its own file."""
    if where is None or len(source.files) != source.shape[0]:
        return ""
    return f" ({source.files[where[0][0]].rpartition('/')[2]})"
