"""Opens each candidate for a catalog entry; a failing candidate does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ctray.archive.catalog_entry import CatalogEntry
from ctray.archive.coverage import LeftOut
from ctray.archive.findings import Candidate
from ctray.archive.helper_process import Helpers
from ctray.archive.time_limit import guarded_map
from ctray.core.errors import CtrayError, InvalidVolumeError, NoVolumeError, one_line
from ctray.formats.opening import open_as
from ctray.formats.registry import reader_of
from ctray.formats.source import VolumeSource
from ctray.storage import store

# Each helper takes most of a second to start and uses one core.
_HELPERS = min(4, store.NUM_CPUS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """Result of opening a candidate.

    Parameters
    ----------
    entry
        Catalog entry of the candidate, without an id; None if the candidate is not a volume.
    left_out
        Reason why the candidate is not a volume; None if it is one.
    parts
        URLs of other files that hold the candidate's voxels.
    voxels_ids, part_ids
        Identifiers of the stored voxels in the candidate's own file and in other files that it
        consists of. They do not depend on paths or links. If the choice of the dataset is unclear,
        all choices are listed.
    """

    entry: CatalogEntry | None = None
    left_out: LeftOut | None = None
    parts: tuple[str, ...] = ()
    voxels_ids: tuple[str, ...] = ()
    part_ids: tuple[str, ...] = ()


def inspect_all(
    candidates: Sequence[Candidate],
    dataset: str | None,
    within: str,
    max_workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[Inspected]:
    """Open each candidate; a failure of any kind gives a failed entry.

    Parameters
    ----------
    candidates
        Candidates, in the order of the result.
    dataset
        Path of the dataset inside every HDF5 file.
    within
        Folder or prefix that the links of HDF5 files must not leave.
    max_workers
        Maximum number of candidates that are opened at the same time.
    progress
        Called after every candidate with the number done and the total.
    """
    inspected: dict[int, Inspected] = {}
    apart = [i for i, one in enumerate(candidates) if _is_apart(one)]
    together = [i for i, one in enumerate(candidates) if not _is_apart(one)]
    with Helpers() as helpers:
        for places, workers in ((together, max_workers), (apart, min(max_workers, _HELPERS))):

            def inspect(one: Candidate) -> Inspected:
                if _is_apart(one):
                    return helpers.call(_inspect, one, dataset, within)
                return _inspect(one, dataset, within)

            results = guarded_map(inspect, [candidates[i] for i in places], max_workers=workers)
            for i, result in zip(places, results, strict=True):
                if isinstance(result, BaseException):
                    result = _failed(candidates[i], result)
                inspected[i] = result
                if progress is not None:
                    progress(len(inspected), len(candidates))
    return [inspected[i] for i in range(len(candidates))]


def parts_of_others(inspected: Mapping[str, Inspected]) -> frozenset[str]:
    """URLs of the candidates whose voxels are all part of other candidates.

    If two candidates are parts of each other, the one with the later URL is the part.
    """
    taken: set[str] = set()
    for url in sorted(inspected):
        own = set(inspected[url].voxels_ids)
        # The voxels that a part refers to already belong to its whole.
        if not own or not own <= taken:
            taken |= set(inspected[url].part_ids) - own
    owned = {url: set(one.voxels_ids) for url, one in inspected.items()}
    return frozenset(url for url, own in owned.items() if own and own <= taken)


def _is_apart(candidate: Candidate) -> bool:
    """Whether a candidate is opened in a helper process."""
    # A helper process cannot read the in-memory store of this process.
    return reader_of(candidate.kind).is_isolated and not candidate.url.startswith("memory://")


def _inspect(candidate: Candidate, dataset: str | None, within: str) -> Inspected:
    if candidate.reason is not None:
        return _failed(candidate, candidate.reason)
    dataset = dataset if candidate.kind == "hdf5" else None
    try:
        if candidate.no_volume is not None:
            raise NoVolumeError(candidate.no_volume)
        with open_as(candidate.url, candidate.kind, dataset=dataset, within=within) as source:
            return Inspected(
                entry=_entry(candidate, source),
                parts=source.parts,
                voxels_ids=source.voxels_ids,
                part_ids=source.part_ids,
            )
    except NoVolumeError as error:
        return Inspected(
            left_out=LeftOut(url=candidate.url, reason=one_line(error)),
            voxels_ids=error.voxels_ids,
            part_ids=error.part_ids,
        )


def _entry(candidate: Candidate, source: VolumeSource) -> CatalogEntry:
    return CatalogEntry(
        volume_id="",
        url=candidate.url,
        kind=source.kind,
        dataset=source.dataset,
        within=source.within,
        shape=source.shape,
        dtype=str(source.dtype),
        voxel_size=source.voxel_size,
        num_bytes=source.num_bytes,
        notes="; ".join([*source.notes, *filter(None, [candidate.note])]) or None,
    )


def _failed(candidate: Candidate, why: BaseException | str) -> Inspected:
    reason = str(why)
    if isinstance(why, BaseException) and (not isinstance(why, CtrayError) or not reason):
        reason = f"{type(why).__name__}: {reason}"
    line = " ".join(reason.split())
    if candidate.url.rpartition("/")[0] not in line:  # Not all errors name their file.
        line = f"{candidate.url}: {line}"
    entry = CatalogEntry(
        volume_id="", url=candidate.url, kind=candidate.kind, status="failed", reason=line
    )
    if isinstance(why, InvalidVolumeError):
        return Inspected(entry=entry, voxels_ids=why.voxels_ids, part_ids=why.part_ids)
    return Inspected(entry=entry)
