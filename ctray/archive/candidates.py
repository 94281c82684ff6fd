"""Opening the candidates for a catalog, each guarded from the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ctray.archive.catalog_entry import CatalogEntry
from ctray.archive.coverage import LeftOut
from ctray.archive.found import Found
from ctray.core.errors import CtrayError, InvalidVolumeError, NoVolumeError, one_line
from ctray.formats.guard import guarded_map
from ctray.formats.isolated import Helpers
from ctray.formats.opening import VolumeSource, open_as
from ctray.formats.parts import Parts
from ctray.storage import store

# Each takes most of a second to start, and a core.
_HELPERS = min(4, store.NUM_CPUS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """What opening a candidate gave: an entry, its id still to come, or why it is no volume."""

    entry: CatalogEntry | None = None
    left_out: LeftOut | None = None
    parts: tuple[str, ...] = ()
    voxels: Parts = field(default_factory=Parts)


def open_all(
    found: Sequence[Found],
    dataset: str | None,
    within: str,
    max_workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[Opened]:
    """What opening each candidate gave, whatever it did to its reader."""
    opened: dict[int, Opened] = {}
    apart = [i for i, one in enumerate(found) if _is_apart(one)]
    together = [i for i, one in enumerate(found) if not _is_apart(one)]
    with Helpers() as helpers:
        for places, workers in ((together, max_workers), (apart, min(max_workers, _HELPERS))):

            def open_(one: Found) -> Opened:
                if _is_apart(one):
                    return helpers.call(_open, one, dataset, within)
                return _open(one, dataset, within)

            results = guarded_map(open_, [found[i] for i in places], max_workers=workers)
            for i, result in zip(places, results, strict=True):
                if isinstance(result, BaseException):
                    result = _failed(found[i], result)
                opened[i] = result
                if progress is not None:
                    progress(len(opened), len(found))
    return [opened[i] for i in range(len(found))]


def _is_apart(found: Found) -> bool:
    """Whether a candidate is opened by another process, which its library may hang or crash."""
    # What is in the memory of this process is seen by no other.
    return found.kind == "hdf5" and not found.url.startswith("memory://")


def _open(found: Found, dataset: str | None, within: str) -> Opened:
    """Open a candidate."""
    if found.reason is not None:
        return _failed(found, found.reason)
    dataset = dataset if found.kind == "hdf5" else None
    try:
        if found.no_volume is not None:
            raise NoVolumeError(found.no_volume)
        with open_as(found.url, found.kind, dataset=dataset, within=within) as source:
            entry = _entry(found, source, within)
            return Opened(entry=entry, parts=source.parts, voxels=Parts.of(source))
    except NoVolumeError as error:
        left_out = LeftOut(url=found.url, reason=one_line(error))
        return Opened(left_out=left_out, voxels=Parts.of(error))


def _entry(found: Found, source: VolumeSource, within: str) -> CatalogEntry:
    return CatalogEntry(
        volume_id="",
        url=found.url,
        kind=source.kind,
        dataset=source.dataset,
        within=within if source.kind == "hdf5" else None,
        shape=source.shape,
        dtype=str(source.dtype),
        voxel_size=source.voxel_size,
        num_bytes=math.prod(source.shape) * source.dtype.itemsize,
        notes="; ".join([*source.notes, *filter(None, [found.note])]) or None,
    )


def _failed(found: Found, why: BaseException | str) -> Opened:
    reason = str(why)
    if isinstance(why, BaseException) and (not isinstance(why, CtrayError) or not reason):
        reason = f"{type(why).__name__}: {reason}"
    line = " ".join(reason.split())
    if found.url.rpartition("/")[0] not in line:  # Not all errors know which file they are of.
        line = f"{found.url}: {line}"
    entry = CatalogEntry(volume_id="", url=found.url, kind=found.kind, status="failed", reason=line)
    voxels = Parts.of(why) if isinstance(why, InvalidVolumeError) else Parts()
    return Opened(entry=entry, voxels=voxels)


__all__ = ["Opened", "open_all"]
