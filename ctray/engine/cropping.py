"""Writing the crops of a located volume: one, or one of each of its specimens."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from ctray import __version__
from ctray.config import Binds, RunConfig, settings_digest
from ctray.errors import OutputExistsError
from ctray.geometry import Box
from ctray.localization.promise import with_margin
from ctray.storage import store
from ctray.storage.catalog import read_catalog
from ctray.storage.crops import write_crop
from ctray.storage.instance_receipt import InstanceReceipt
from ctray.storage.run_folder import Receipt, RunFolder
from ctray.storage.run_manifest import read_manifest
from ctray.storage.volume import Volume, open_volume
from ctray.storage.writer import is_committed


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """With which settings crops are cut.

    Parameters
    ----------
    digest
        Of the settings that crops depend on.
    changed
        Whether the run's had other values before.
    """

    digest: str
    changed: bool

    @classmethod
    def of(cls, run: RunFolder, config: RunConfig) -> Cut:
        """Those of a run, as it is to be cut now."""
        manifest = read_manifest(run)
        return cls(
            digest=crop_digest(config), changed=manifest is not None and manifest.crops_changed
        )

    def is_of(self, receipt: Receipt) -> bool:
        """Whether the crops of a volume were cut so, or there are to be none."""
        if not receipt.crops or receipt.crop_settings == self.digest:
            return True
        # Earlier versions kept no digest, and allowed no other settings.
        return receipt.crop_settings is None and not self.changed


def crop_digest(config: RunConfig) -> str:
    """Digest of the settings that crops depend on."""
    return settings_digest(config, Binds.CROP)


def without_crops(receipt: Receipt, run: RunFolder) -> Receipt:
    """Remove the crops of a volume, to be cut otherwise; its receipt says so before they go."""
    urls = [url for url in receipt.crops if url is not None]
    nothing: dict[str, Any] = {"crop_url": None, "crop_box": None, "checksum": None}
    instances = [
        replace(i, **nothing, margins=None, bytes_written=0) for i in receipt.instances or []
    ]
    receipt = replace(
        receipt,
        **nothing,
        instances=instances or receipt.instances,
        margins=None,
        max_loss=None,
        coverage=None,
        crop_settings=None,
        bytes_written=0,
    )
    if urls:
        run.write_receipt(receipt)
    for url in urls:
        store.delete_tree(url)
    return receipt


def crop_located(volume: Volume, receipt: Receipt, run: RunFolder, config: RunConfig) -> Receipt:
    """Write the crops of a located volume that are not there, and return the fuller receipt."""
    if receipt.box is None or None not in receipt.crops:
        return receipt
    receipt = replace(receipt, crop_settings=crop_digest(config))
    began, read_before = time.monotonic(), volume.bytes_read
    if receipt.instances:
        taken = _names_taken(run)
        instances = [
            _crop_instance(volume, receipt, number, run, config, taken)
            for number in range(1, len(receipt.instances) + 1)
        ]
        written = sum(instance.bytes_written for instance in instances)
        receipt = replace(receipt, instances=instances, bytes_written=written)
    else:
        box = with_margin(receipt, volume.shape, config)
        told = {"sample_box": receipt.box, "confidence": receipt.confidence}
        receipt = replace(
            receipt, **_crop(volume, box, run.crop(receipt.volume_id), receipt, told, config)
        )
    return replace(
        receipt,
        bytes_read=receipt.bytes_read + volume.bytes_read - read_before,
        seconds=receipt.seconds + time.monotonic() - began,
    )


def _crop_instance(
    volume: Volume,
    receipt: Receipt,
    number: int,
    run: RunFolder,
    config: RunConfig,
    taken: frozenset[str],
) -> InstanceReceipt:
    instances = receipt.instances or []
    instance = instances[number - 1]
    if instance.crop_url is not None:
        return instance
    told = {
        "sample_box": instance.box,
        "confidence": min(instance.certainty),
        "instance": number,
        "instances": len(instances),
        "box_of_all": receipt.box,
    }
    url = _instance_url(run, receipt.volume_id, number, taken)
    box = with_margin(instance, volume.shape, config)
    return replace(instance, **_crop(volume, box, url, receipt, told, config))


def _names_taken(run: RunFolder) -> frozenset[str]:
    """URLs of the crops of whole volumes, in small letters."""
    return frozenset(run.crop(entry.volume_id).lower() for entry in read_catalog(run.catalog))


def _instance_url(
    run: RunFolder, volume_id: str, number: int, taken: frozenset[str] | None = None
) -> str:
    """URL of a specimen's crop; not that of another volume whose id ends in the same number."""
    taken = _names_taken(run) if taken is None else taken
    url = run.crop(volume_id, number)
    while url.lower() in taken:
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
) -> dict[str, Any]:
    """Write a crop, unless an interrupted run did; what a receipt says of it."""
    marks = {
        "source_stamp": receipt.source.get("stamp"),
        "crop_settings": receipt.crop_settings,
    }
    if is_committed(url):
        there = open_volume(url)
        _check_own(there, receipt.volume_id, told.get("instance"))
        asked = {**marks, "box_asked": box.ranges, "sample_box": told["sample_box"]}
        if any(there.attributes.get(name) != value for name, value in asked.items()):
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
                "original_url": receipt.source_url,
                "method": receipt.method,
                "model_digest": receipt.model_digest,
                **told,
                "max_loss": receipt.max_loss,
                "coverage": receipt.coverage,
                "version": __version__,
            },
            ome_version=config.crop.ome_version,
            max_stride=config.crop.max_stride,
            snap_chunks=config.crop.snap_chunks,
            surround_size=config.crop.surround_size if config.crop.keep_surround else None,
        )
    # Read back from what was committed, which an earlier, interrupted run may have done.
    crop = open_volume(url)
    return {
        "crop_url": url,
        "crop_box": crop.attributes["box"],
        "checksum": crop.attributes["checksum"],
        "bytes_written": crop.bytes_stored() or 0,
    }


def _check_own(crop: Volume, volume_id: str, instance: int | None) -> None:
    """Refuse a crop of another volume: one that came later may have the name of a specimen."""
    theirs = (crop.attributes["volume_id"], crop.attributes.get("instance"))
    if theirs != (volume_id, instance):
        raise OutputExistsError(
            f"{crop.url} is the crop of volume {theirs[0]}, specimen {theirs[1]}, and not of "
            f"{volume_id}; rename the volume in the archive"
        )
