"""Writing the crops of a located volume: one, or one of each of its specimens."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ctray.archive.catalog import read_catalog
from ctray.config import Binds, RunConfig, settings_digest
from ctray.core.errors import OutputExistsError
from ctray.crops.cutting import write_crop
from ctray.records.crop_attributes import crop_attributes, crop_fields, promise_fields
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import SpecimenRecord, VolumeRecord, box_to_cut
from ctray.storage import store
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.writer import is_committed


def crop_digest(config: RunConfig) -> str:
    """Digest of the settings that crops depend on."""
    return settings_digest(config, Binds.CROP)


def is_cut_with(record: VolumeRecord, digest: str) -> bool:
    """Whether the crops of a volume were cut with the settings of `digest`, or there are none."""
    return not record.crops or record.crop_settings == digest


def without_crops(record: VolumeRecord, run: RunFolder) -> VolumeRecord:
    """Remove the crops of a volume, to be cut again; its receipt is written before they go."""
    urls = [url for url in record.crops if url is not None]
    nothing: dict[str, Any] = dict.fromkeys(("crop_url", "asked_box", "crop_box", "checksum"))
    specimens = [
        replace(s, **nothing, margins=None, bytes_written=0) for s in record.specimens or []
    ]
    record = replace(
        record,
        **nothing,
        specimens=specimens or record.specimens,
        margins=None,
        promise=None,
        max_loss=None,
        coverage=None,
        crop_settings=None,
        bytes_written=0,
    )
    if urls:
        run.write_receipt(record)
    for url in urls:
        store.delete_tree(url)
    return record


def crop_located(
    volume: Volume, record: VolumeRecord, run: RunFolder, config: RunConfig
) -> VolumeRecord:
    """Write the crops of a located volume that are missing, and return the fuller record.

    The promise of a crop that an interrupted run wrote is read from the crop.
    """
    if record.sample_box is None or None not in record.crops:
        return record
    record = replace(record, crop_settings=crop_digest(config))
    began, read_before = time.monotonic(), volume.bytes_read
    if record.specimens:
        taken = _names_taken(run)
        specimens = [
            _crop_specimen(volume, record, number, run, config, taken)
            for number in range(1, len(record.specimens) + 1)
        ]
        written = sum(specimen.bytes_written for specimen in specimens)
        record = replace(record, specimens=specimens, bytes_written=written)
    else:
        crop = _crop(volume, record, run.crop(record.volume_id), config)
        record = replace(record, **_cut(crop), **promise_fields(crop.attributes))
    return replace(
        record,
        bytes_read=record.bytes_read + volume.bytes_read - read_before,
        seconds=record.seconds + time.monotonic() - began,
    )


def _crop_specimen(
    volume: Volume,
    record: VolumeRecord,
    number: int,
    run: RunFolder,
    config: RunConfig,
    taken: frozenset[str],
) -> SpecimenRecord:
    specimen = (record.specimens or [])[number - 1]
    if specimen.crop_url is not None:
        return specimen
    url = _specimen_url(run, record.volume_id, number, taken)
    return replace(specimen, **_cut(_crop(volume, record, url, config, number)))


def _names_taken(run: RunFolder) -> frozenset[str]:
    """URLs of the crops of whole volumes, in small letters."""
    return frozenset(run.crop(entry.volume_id).lower() for entry in read_catalog(run.catalog))


def _specimen_url(
    run: RunFolder, volume_id: str, number: int, taken: frozenset[str] | None = None
) -> str:
    """URL of a specimen's crop that is not the URL of another volume's crop."""
    taken = _names_taken(run) if taken is None else taken
    url = run.crop(volume_id, number)
    while url.lower() in taken:
        volume_id += "-"
        url = run.crop(volume_id, number)
    return url


def _crop(
    volume: Volume, record: VolumeRecord, url: str, config: RunConfig, specimen: int = 0
) -> Volume:
    """Crop at `url`, of the volume or of one of its specimens.

    It is written now unless an interrupted run wrote it.
    """
    box = box_to_cut(record.parts[specimen], volume.shape)
    attributes = crop_attributes(record, specimen)
    if is_committed(url):
        told = open_volume(url).attributes
        _check_own(url, told, record.volume_id, specimen)
        wanted = {**attributes, "asked_box": box.ranges}
        # No receipt names it, so it may be of another source or of other settings.
        if any(told.get(name) != wanted[name] for name in _SAME_CUT):
            store.delete_tree(url)
    if not is_committed(url):
        write_crop(
            volume,
            box,
            url,
            provenance=attributes,
            ome_version=config.crop.ome_version,
            max_stride=config.crop.max_stride,
            snap_chunks=config.crop.snap_chunks,
            surround_size=config.crop.surround_size if config.crop.keep_surround else None,
        )
    return open_volume(url)


# A finished crop with these attributes is the one that would be cut now.
_SAME_CUT = ("source_stamp", "crop_settings", "asked_box", "sample_box")


def _cut(crop: Volume) -> dict[str, Any]:
    """Fields of a record that a crop tells, read back from what was committed."""
    return {
        **crop_fields(crop.attributes),
        "crop_url": crop.url,
        "bytes_written": crop.bytes_stored() or 0,
    }


def _check_own(url: str, told: dict[str, Any], volume_id: str, specimen: int) -> None:
    """Refuse the crop of another volume, which may have the name of a specimen."""
    theirs = (told["volume_id"], told.get("specimen", 0))
    if theirs != (volume_id, specimen):
        raise OutputExistsError(
            f"{url} is the crop of volume {theirs[0]}, specimen {theirs[1]}, and not of "
            f"{volume_id}; rename the volume in the archive"
        )
