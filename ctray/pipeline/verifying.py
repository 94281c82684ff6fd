"""Whether the crops of a run are still what was written, and what their sources hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctray.archive.source_comparison import Share, SourceComparison, compare_with_source
from ctray.archive.source_record import SourceRecord
from ctray.core.errors import CtrayError, NotFoundError, one_line
from ctray.core.parallel import BYTES_IN_FLIGHT, MAX_THREADS, bounded_map
from ctray.crops.voxel_checksum import voxel_checksum
from ctray.records.receipt_query import all_receipts
from ctray.records.run_folder import Receipt, RunFolder
from ctray.volumes.manifest import MANIFEST, differences
from ctray.volumes.volume import open_volume

# Of the objects that are not as they were, so many are named.
_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CropCheck:
    """What `verify_run` found about one crop.

    Parameters
    ----------
    volume_id, specimen
        Which crop; `specimen` is 0 unless the volume holds several specimens.
    crop_url
        Where it is, None for a receipt that cannot be read.
    problem
        What is wrong with it, on one line; None for a sound one.
    voxels_compared
        Voxels that were compared with the source.
    """

    volume_id: str
    specimen: int
    crop_url: str | None
    problem: str | None
    voxels_compared: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    volume_id: str
    specimen: int
    crop_url: str | None
    checksum: str | None
    source_url: str = ""
    source: SourceRecord | None = None
    problem: str | None = None


def verify_run(
    run: RunFolder,
    *,
    sources: bool = False,
    sample: float = 1.0,
    seed: int = 0,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
) -> Iterator[CropCheck]:
    """Check every crop that the receipts of a run name, in their order.

    What a crop's store holds is compared with its manifest, and that with the checksum in crop and
    receipt. Crops of earlier versions are unpacked and their voxels compared with their checksum.

    Parameters
    ----------
    run
        The run.
    sources
        Compare voxels with the source in the archive too, see
        `ctray.archive.source_comparison.compare_with_source`.
    sample
        Part of each crop's shards, or of its source's slabs, that is compared then, at least one;
        chosen by `seed`.
    bytes_in_flight
        Bound of what is held in memory.
    """

    def one(asked: _Asked) -> CropCheck:
        compared = 0
        problem = asked.problem
        if problem is None:
            # One bad crop, or a store that fails once, is no reason to leave out the rest.
            try:
                problem = _stored_problem(asked, bytes_in_flight // MAX_THREADS)
                if problem is None and sources:
                    share = Share(
                        fraction=sample,
                        rng=np.random.default_rng(
                            [seed, *asked.volume_id.encode(), asked.specimen]
                        ),
                        # Once a volume is enough, however many crops it has.
                        whole=asked.specimen <= 1,
                        bytes_in_flight=bytes_in_flight // MAX_THREADS,
                    )
                    found = _source_comparison(asked, share)
                    problem, compared = found.problem, found.voxels_compared
            except CtrayError as error:
                problem = one_line(error)
        return CropCheck(
            volume_id=asked.volume_id,
            specimen=asked.specimen,
            crop_url=asked.crop_url,
            problem=problem,
            voxels_compared=compared,
        )

    return bounded_map(one, _asked(run), bytes_per_item=1, max_threads=MAX_THREADS)


def _asked(run: RunFolder) -> Iterator[_Asked]:
    for volume_id, receipt in all_receipts(run):
        if isinstance(receipt, CtrayError):
            yield _Asked(
                volume_id=volume_id,
                specimen=0,
                crop_url=None,
                checksum=None,
                problem=one_line(receipt),
            )
        elif receipt.status == "located":
            yield from _crops_of(receipt)


def _crops_of(receipt: Receipt) -> Iterator[_Asked]:
    if not receipt.specimens:
        found = [(0, receipt.crop_url, receipt.checksum)]
    else:
        found = [(n, i.crop_url, i.checksum) for n, i in enumerate(receipt.specimens, start=1)]
    for specimen, url, checksum in found:
        if url is not None:
            yield _Asked(
                volume_id=receipt.volume_id,
                specimen=specimen,
                crop_url=url,
                checksum=checksum,
                source_url=receipt.source_url,
                source=SourceRecord.from_json(receipt.source),
            )


def _source_comparison(asked: _Asked, share: Share) -> SourceComparison:
    assert asked.crop_url is not None
    return compare_with_source(open_volume(asked.crop_url), asked.source_url, asked.source, share)


def _stored_problem(asked: _Asked, bytes_in_flight: int) -> str | None:
    """What is wrong with a crop as it is stored, None for a sound one."""
    assert asked.crop_url is not None
    try:
        crop = open_volume(asked.crop_url)
    except NotFoundError as error:
        return f"missing ({one_line(error)})"
    told = crop.attributes.get("checksum")
    if told is None or told != asked.checksum:
        return f"checksum {told} is not {asked.checksum} of the receipt; it is another crop"
    if crop.attributes.get("checksum_of") != MANIFEST:
        same = voxel_checksum(crop, bytes_in_flight) == told
        return None if same else "voxels are not those that were written"
    found = list(differences(crop.url, told, bytes_in_flight))
    if not found:
        return None
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more
