"""Writing the crops of a located volume: one, or one for each of its specimens."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import Any

from ctray.archive.catalog import read_catalog
from ctray.config import Binds, CropConfig, RunConfig, settings_digest
from ctray.core.errors import InvalidVolumeError, OutputExistsError
from ctray.crops.cutting import write_crop
from ctray.localization.margins import Calibration
from ctray.localization.promise import calibration_of, is_too_open, with_promise
from ctray.records.crop_attributes import crop_attributes, crop_fields, promise_fields
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import SpecimenRecord, VolumeRecord, box_to_cut
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.volume import Volume, open_volume


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Current settings for the crops of a run.

    Parameters
    ----------
    digest
        Digest of the settings that crops depend on.
    crop
        The section `crop` of the settings.
    calibration
        Current calibration of the run.
    """

    digest: str
    crop: CropConfig
    calibration: Calibration

    @classmethod
    def of(cls, run: RunFolder, config: RunConfig) -> Cut:
        """Current settings for a new or an existing run."""
        return cls(digest=crop_digest(config), crop=config.crop, calibration=calibration_of(run))

    def is_of(self, record: VolumeRecord) -> bool:
        """Whether the crops of a volume were cut with these settings, or it needs no crop."""
        return not record.crops or record.crop_settings == self.digest

    def decide(self, record: VolumeRecord) -> VolumeRecord:
        """Record with margins and promise by the current settings; see `with_promise`."""
        record = with_promise(record, self.crop, self.calibration)
        return replace(record, crop_settings=self.digest)

    def locates(self, record: VolumeRecord) -> bool:
        """Whether a volume with a face that was too open is located by the current settings."""
        return is_too_open(record) and self.decide(record).status == "located"


def is_open(record: VolumeRecord | None, crop: bool, cut: Cut) -> bool:
    """Whether a volume is unfinished.

    Parameters
    ----------
    record
        Record of the volume; None if it has no receipt.
    crop
        Whether to crop located volumes.
    cut
        Current settings for crops.
    """
    if record is None or cut.locates(record):
        return True
    return crop and (None in record.crops or not cut.is_of(record))


def crop_digest(config: RunConfig) -> str:
    """Digest of the settings that crops depend on."""
    return settings_digest(config, Binds.CROP)


def without_crops(record: VolumeRecord, run: RunFolder) -> VolumeRecord:
    """Remove the crops of a volume, to cut it again. Its receipt is written before the removal."""
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
    # Last one first, because `commit_receipt` searches remaining crops from the first on.
    for url in reversed(urls):
        store.delete_tree(url)
    return record


def commit_receipt(record: VolumeRecord, run: RunFolder, taken: frozenset[str]) -> None:
    """Write a receipt after removing leftover files of earlier receipts of its volume.

    Leftover crops come from an interrupted run, or from a source that has changed and held more
    specimens. They are removed so that they are not mistaken for results. A failed volume keeps
    them, because nothing replaces them; its receipt does not name them. Pictures and maps are kept
    only for volumes that were localized.

    Parameters
    ----------
    record
        Record of the volume.
    run
        Run folder.
    taken
        Result of `names_taken`.
    """
    if record.status != "failed":
        for url in reversed(_unnamed_crops(record, run, taken)):
            store.delete_tree(url)
    if not record.working:
        run.delete_preview(record.volume_id)
        store.delete_tree(run.map(record.volume_id))
    run.write_receipt(record)


def _unnamed_crops(record: VolumeRecord, run: RunFolder, taken: frozenset[str]) -> list[str]:
    # Compare names, because the folder of a run may have moved since a crop was written.
    named = {url.rpartition("/")[2] for url in record.crops if url is not None}
    found: list[str] = []
    for number in itertools.count():
        url = _specimen_url(run, record.volume_id, number, taken)
        if url.rpartition("/")[2] in named:
            continue
        if _is_crop_of(url, record.volume_id, number):
            found.append(url)
        elif number > len(record.specimens or []):
            break
    return found


def _is_crop_of(url: str, volume_id: str, number: int) -> bool:
    try:
        told = open_volume(url).attributes if is_committed(url) else {}
    except InvalidVolumeError:
        # The volume of a damaged crop is unknown.
        return False
    return (told.get("volume_id"), told.get("specimen", 0)) == (volume_id, number)


def crop_located(
    volume: Volume, record: VolumeRecord, run: RunFolder, config: RunConfig, taken: frozenset[str]
) -> VolumeRecord:
    """Write the missing crops of a located volume, and return the completed record.

    If an interrupted run wrote a crop, its promise is read from the crop. `taken` is the result of
    `names_taken`.
    """
    if record.sample_box is None or None not in record.crops:
        return record
    record = replace(record, crop_settings=crop_digest(config))
    began, read_before = time.monotonic(), volume.bytes_read
    if record.specimens:
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


def names_taken(run: RunFolder) -> frozenset[str]:
    """URLs of the crops of whole volumes, in lower case. Crops of specimens must not use them."""
    return frozenset(run.crop(entry.volume_id).lower() for entry in read_catalog(run.catalog))


def _specimen_url(run: RunFolder, volume_id: str, number: int, taken: frozenset[str]) -> str:
    """URL of the crop of a specimen, or of the volume if `number` is 0.

    The URL of a specimen differs from the URLs of other volumes, whose ids may end in its number.
    """
    url = run.crop(volume_id, number)
    while number and url.lower() in taken:
        volume_id += "-"
        url = run.crop(volume_id, number)
    return url


def _crop(
    volume: Volume, record: VolumeRecord, url: str, config: RunConfig, specimen: int = 0
) -> Volume:
    """Crop at `url`, of the volume or of one of its specimens.

    The crop is written unless an interrupted run already wrote the same crop.
    """
    box = box_to_cut(record.parts[specimen], volume.shape)
    attributes = crop_attributes(record, specimen)
    if is_committed(url):
        told = open_volume(url).attributes
        _check_own(url, told, record.volume_id, specimen)
        wanted = {**attributes, "asked_box": box.ranges}
        # No receipt names this crop, so its source or its settings may differ.
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


# A finished crop with equal values of these attributes is the crop that would be written now.
_SAME_CUT = ("source_stamp", "crop_settings", "asked_box", "sample_box")


def _cut(crop: Volume) -> dict[str, Any]:
    """Fields of a record that are read back from a committed crop."""
    return {
        **crop_fields(crop.attributes),
        "crop_url": crop.url,
        "bytes_written": crop.bytes_stored() or 0,
    }


def _check_own(url: str, told: dict[str, Any], volume_id: str, specimen: int) -> None:
    """Refuse the crop of another volume, whose name may equal that of a specimen."""
    theirs = (told["volume_id"], told.get("specimen", 0))
    if theirs != (volume_id, specimen):
        raise OutputExistsError(
            f"{url} is the crop of volume {theirs[0]}, specimen {theirs[1]}, and not of "
            f"{volume_id}; rename the volume in the archive"
        )
