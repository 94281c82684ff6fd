"""Writing the crops of a located volume: one, or one of each of its specimens."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import Any

from ctray.archive.catalog import read_catalog
from ctray.config import Binds, CropConfig, RunConfig, changed_settings, settings_digest
from ctray.core.errors import InvalidVolumeError, OutputExistsError
from ctray.core.geometry import Box
from ctray.crops.cutting import write_crop
from ctray.crops.old_names import crop_attributes
from ctray.localization.margins import Calibration
from ctray.localization.promise import box_to_cut, calibration_of, is_too_open, with_promise
from ctray.records.run_folder import Receipt, RunFolder
from ctray.records.run_manifest import read_manifest
from ctray.records.specimen_receipt import SpecimenReceipt
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.volume import Volume, open_volume


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """With which settings and calibration crops are cut.

    Parameters
    ----------
    digest
        Of the settings that crops depend on.
    changed
        Whether the run's had other values before.
    crop
        Those settings.
    calibration
        At hand now.
    """

    digest: str
    changed: bool
    crop: CropConfig
    calibration: Calibration

    @classmethod
    def of(cls, run: RunFolder, config: RunConfig) -> Cut:
        """Those of a run, as it is to be cut now, begun or not."""
        begun = read_manifest(run)
        return cls(
            digest=crop_digest(config),
            changed=begun is not None
            and (begun.crops_changed or bool(changed_settings(begun.config, config, Binds.CROP))),
            crop=config.crop,
            calibration=calibration_of(run),
        )

    def is_of(self, receipt: Receipt) -> bool:
        """Whether the crops of a volume were cut so, or there are to be none."""
        if not receipt.crops or receipt.crop_settings == self.digest:
            return True
        # Earlier versions kept no digest, and allowed no other settings.
        return receipt.crop_settings is None and not self.changed

    def decide(self, receipt: Receipt) -> Receipt:
        """Receipt with the margins and the promise of today; see `with_promise`."""
        receipt = with_promise(receipt, self.crop, self.calibration)
        return replace(receipt, crop_settings=self.digest)

    def locates(self, receipt: Receipt) -> bool:
        """Whether a volume that had a face too open is located by the margins of today."""
        return is_too_open(receipt) and self.decide(receipt).status == "located"


def is_open(receipt: Receipt | None, crop: bool, cut: Cut) -> bool:
    """Whether something is left to do of a volume.

    Parameters
    ----------
    receipt
        Of the volume, None where there is none.
    crop
        Whether located volumes are to be cropped.
    cut
        How they are cut now.
    """
    if receipt is None or cut.locates(receipt):
        return True
    return crop and (None in receipt.crops or not cut.is_of(receipt))


def crop_digest(config: RunConfig) -> str:
    """Digest of the settings that crops depend on."""
    return settings_digest(config, Binds.CROP)


def without_crops(receipt: Receipt, run: RunFolder) -> Receipt:
    """Remove the crops of a volume, to be cut otherwise; its receipt says so before they go."""
    urls = [url for url in receipt.crops if url is not None]
    nothing: dict[str, Any] = dict.fromkeys(("crop_url", "asked_box", "crop_box", "checksum"))
    specimens = [
        replace(i, **nothing, margins=None, bytes_written=0) for i in receipt.specimens or []
    ]
    receipt = replace(
        receipt,
        **nothing,
        specimens=specimens or receipt.specimens,
        margins=None,
        promise=None,
        max_loss=None,
        coverage=None,
        crop_settings=None,
        bytes_written=0,
    )
    if urls:
        run.write_receipt(receipt)
    # The last first: `commit_receipt` counts those that are left from the first on.
    for url in reversed(urls):
        store.delete_tree(url)
    return receipt


def commit_receipt(receipt: Receipt, run: RunFolder, taken: frozenset[str]) -> None:
    """Write a receipt, after what earlier ones of its volume left behind is gone.

    That is crops of a source that has changed since and held more specimens, or of a run that was
    interrupted: nobody shall take them for results. A volume that failed keeps them, since nothing
    takes their place; no receipt names them then. Pictures and maps are of volumes that were
    localized.

    Parameters
    ----------
    receipt
        What became of the volume.
    run
        The run.
    taken
        From `names_taken`.
    """
    if receipt.status != "failed":
        for url in reversed(_unnamed_crops(receipt, run, taken)):
            store.delete_tree(url)
    if not receipt.working:
        run.delete_preview(receipt.volume_id)
        store.delete_tree(run.map(receipt.volume_id))
    run.write_receipt(receipt)


def _unnamed_crops(receipt: Receipt, run: RunFolder, taken: frozenset[str]) -> list[str]:
    # By name: the folder of a run may have been moved since a crop was written.
    named = {url.rpartition("/")[2] for url in receipt.crops if url is not None}
    found: list[str] = []
    for number in itertools.count():
        url = _specimen_url(run, receipt.volume_id, number, taken)
        if url.rpartition("/")[2] in named:
            continue
        if _is_crop_of(url, receipt.volume_id, number):
            found.append(url)
        elif number > len(receipt.specimens or []):
            break
    return found


def _is_crop_of(url: str, volume_id: str, number: int) -> bool:
    try:
        told = open_volume(url).attributes if is_committed(url) else {}
    except InvalidVolumeError:
        # Whose it is nobody can tell.
        return False
    return (told.get("volume_id"), told.get("specimen")) == (volume_id, number or None)


def crop_located(
    volume: Volume, receipt: Receipt, run: RunFolder, config: RunConfig, taken: frozenset[str]
) -> Receipt:
    """Write the crops of a located volume that are not there, and return the fuller receipt.

    What was promised of a crop that an interrupted run wrote is what the crop says. `taken` is
    from `names_taken`.
    """
    sample = receipt.sample_box
    if sample is None or None not in receipt.crops:
        return receipt
    receipt = replace(receipt, crop_settings=crop_digest(config))
    began, read_before = time.monotonic(), volume.bytes_read
    if receipt.specimens:
        specimens = [
            _crop_specimen(volume, receipt, number, run, config, taken)
            for number in range(1, len(receipt.specimens) + 1)
        ]
        written = sum(specimen.bytes_written for specimen in specimens)
        receipt = replace(receipt, specimens=specimens, bytes_written=written)
    else:
        box = box_to_cut(receipt, volume.shape)
        told = {
            "sample_box": sample.ranges,
            "confidence": receipt.confidence,
            "margins": receipt.margins,
        }
        crop = _crop(volume, box, run.crop(receipt.volume_id), receipt, told, config)
        receipt = replace(receipt, **_cut(crop), **_promised(crop))
    return replace(
        receipt,
        bytes_read=receipt.bytes_read + volume.bytes_read - read_before,
        seconds=receipt.seconds + time.monotonic() - began,
    )


def _crop_specimen(
    volume: Volume,
    receipt: Receipt,
    number: int,
    run: RunFolder,
    config: RunConfig,
    taken: frozenset[str],
) -> SpecimenReceipt:
    specimens = receipt.specimens or []
    specimen = specimens[number - 1]
    if specimen.crop_url is not None:
        return specimen
    told = {
        "sample_box": specimen.sample_box.ranges,
        "confidence": min(specimen.face_confidence),
        "margins": specimen.margins,
        "specimen": number,
        "num_specimens": len(specimens),
        "all_specimens_box": receipt.sample_box.ranges if receipt.sample_box else None,
    }
    url = _specimen_url(run, receipt.volume_id, number, taken)
    box = box_to_cut(specimen, volume.shape)
    return replace(specimen, **_cut(_crop(volume, box, url, receipt, told, config)))


def names_taken(run: RunFolder) -> frozenset[str]:
    """URLs of the crops of whole volumes, in small letters: no crop of a specimen has one."""
    return frozenset(run.crop(entry.volume_id).lower() for entry in read_catalog(run.catalog))


def _specimen_url(run: RunFolder, volume_id: str, number: int, taken: frozenset[str]) -> str:
    """URL of a specimen's crop, or with number 0 of the volume's.

    A specimen's is not that of another volume whose id ends in the same number.
    """
    url = run.crop(volume_id, number)
    while number and url.lower() in taken:
        volume_id += "-"
        url = run.crop(volume_id, number)
    return url


def _crop(
    volume: Volume,
    box: Box,
    url: str,
    receipt: Receipt,
    told: dict[str, Any],
    config: RunConfig,
) -> Volume:
    """Crop at `url`, written now unless an interrupted run did."""
    marks = {
        "source_stamp": receipt.source.get("stamp"),
        "crop_settings": receipt.crop_settings,
    }
    if is_committed(url):
        there = open_volume(url)
        _check_own(there, receipt.volume_id, told.get("specimen"))
        asked = {**marks, "asked_box": box.ranges, "sample_box": told["sample_box"]}
        said = crop_attributes(there.attributes)
        if any(said.get(name) != value for name, value in asked.items()):
            # No receipt names it: it was cut from another source, or otherwise.
            store.delete_tree(url)
    if not is_committed(url):
        write_crop(
            volume,
            box,
            url,
            provenance={
                **marks,
                "volume_id": receipt.volume_id,
                "source_url": receipt.source_url,
                "imported_url": receipt.imported_url,
                "method": receipt.method,
                "model_digest": receipt.model_digest,
                "box_settings_digest": receipt.box_settings_digest,
                **told,
                "promise": receipt.promise,
                "max_loss": receipt.max_loss,
                "coverage": receipt.coverage,
            },
            ome_version=config.crop.ome_version,
            max_stride=config.crop.max_stride,
            snap_chunks=config.crop.snap_chunks,
            surround_size=config.crop.surround_size if config.crop.keep_surround else None,
        )
    return open_volume(url)


def _cut(crop: Volume) -> dict[str, Any]:
    """What a receipt says of a crop, read back from what was committed."""
    told = crop_attributes(crop.attributes)
    return {
        "crop_url": crop.url,
        "asked_box": Box.from_ranges(told["asked_box"]),
        "crop_box": Box.from_ranges(told["crop_box"]),
        "margins": told.get("margins"),
        "checksum": told["checksum"],
        "bytes_written": crop.bytes_stored() or 0,
    }


def _promised(crop: Volume) -> dict[str, Any]:
    told = crop_attributes(crop.attributes)
    return {name: told.get(name) for name in ("promise", "max_loss", "coverage")}


def _check_own(crop: Volume, volume_id: str, specimen: int | None) -> None:
    """Refuse a crop of another volume: one that came later may have the name of a specimen."""
    theirs = (crop.attributes["volume_id"], crop.attributes.get("specimen"))
    if theirs != (volume_id, specimen):
        raise OutputExistsError(
            f"{crop.url} is the crop of volume {theirs[0]}, specimen {theirs[1]}, and not of "
            f"{volume_id}; rename the volume in the archive"
        )
