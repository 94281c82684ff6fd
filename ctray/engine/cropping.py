"""Writing the crops of a located volume: one, or one of each of its specimens."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ctray import __version__
from ctray.config import RunConfig
from ctray.errors import OutputExistsError
from ctray.geometry import Box
from ctray.localization.promise import with_margin
from ctray.storage.catalog import read_catalog
from ctray.storage.crops import write_crop
from ctray.storage.instance_receipt import InstanceReceipt
from ctray.storage.run_folder import Receipt, RunFolder
from ctray.storage.volume import Volume, open_volume
from ctray.storage.writer import is_committed


def crop_located(volume: Volume, receipt: Receipt, run: RunFolder, config: RunConfig) -> Receipt:
    """Write the crops of a located volume that are not there, and return the fuller receipt."""
    if receipt.box is None or None not in receipt.crops:
        return receipt
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
    if not is_committed(url):
        write_crop(
            volume,
            box,
            url,
            provenance={
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
    _check_own(crop, receipt.volume_id, told.get("instance"))
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
