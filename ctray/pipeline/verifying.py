"""Checks that the crops of a run are unchanged since writing and agree with their sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctray.archive.source_comparison import Share, SourceComparison, compare_with_source
from ctray.archive.source_record import SourceRecord
from ctray.core.errors import CtrayError, NotFoundError, one_line
from ctray.core.parallel import BYTES_IN_FLIGHT, MAX_THREADS, bounded_map
from ctray.records.receipt_query import all_receipts
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.volumes.manifest import differences
from ctray.volumes.volume import open_volume

# Maximum number of changed objects in a message.
_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CropCheck:
    """Result of `verify_run` for one crop.

    Parameters
    ----------
    volume_id, specimen
        Volume and specimen of the crop; `specimen` is 0 unless the volume has several.
    crop_url
        URL of the crop; None for a receipt that cannot be read.
    problem
        The fault in one line; None if the crop has no fault.
    voxels_compared
        Number of voxels that were compared with the source.
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
    """Check every crop that the receipts of a run name, in the order of the receipts.

    The objects of a crop are compared with its manifest. The manifest is compared with the
    checksums in the crop and in the receipt.

    Parameters
    ----------
    run
        The run.
    sources
        Whether to also compare voxels with the source in the archive, see
        `ctray.archive.source_comparison.compare_with_source`.
    sample
        Fraction of each crop's shards, or of its source's slabs, to compare with `sources`; at
        least one is compared.
    seed
        Seed of the choice of shards or slabs.
    bytes_in_flight
        Limit on bytes in memory.
    """

    def one(asked: _Asked) -> CropCheck:
        compared = 0
        problem = asked.problem
        if problem is None:
            # After a bad crop or a single store failure, the other crops are still checked.
            try:
                problem = _stored_problem(asked, bytes_in_flight // MAX_THREADS)
                if problem is None and sources:
                    share = Share(
                        fraction=sample,
                        rng=np.random.default_rng(
                            [seed, *asked.volume_id.encode(), asked.specimen]
                        ),
                        # Once per volume is enough.
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
    for volume_id, record in all_receipts(run):
        if isinstance(record, CtrayError):
            yield _Asked(
                volume_id=volume_id,
                specimen=0,
                crop_url=None,
                checksum=None,
                problem=one_line(record),
            )
        elif record.status == "located":
            yield from _crops_of(record)


def _crops_of(record: VolumeRecord) -> Iterator[_Asked]:
    for specimen, part in record.parts.items():
        if part.crop_url is not None:
            yield _Asked(
                volume_id=record.volume_id,
                specimen=specimen,
                crop_url=part.crop_url,
                checksum=part.checksum,
                source_url=record.source_url,
                source=SourceRecord.from_json(record.source),
            )


def _source_comparison(asked: _Asked, share: Share) -> SourceComparison:
    assert asked.crop_url is not None
    return compare_with_source(open_volume(asked.crop_url), asked.source_url, asked.source, share)


def _stored_problem(asked: _Asked, bytes_in_flight: int) -> str | None:
    """Fault of a stored crop, in one line; None if the crop has no fault."""
    assert asked.crop_url is not None
    try:
        crop = open_volume(asked.crop_url)
    except NotFoundError as error:
        return f"missing ({one_line(error)})"
    told = crop.attributes.get("checksum")
    if told is None or told != asked.checksum:
        return f"checksum {told} is not {asked.checksum} of the receipt; it is another crop"
    found = list(differences(crop.url, told, bytes_in_flight))
    if not found:
        return None
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more
