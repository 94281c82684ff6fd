"""Reads a few volumes of an archive to estimate the savings of cropping; writes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from ctray.archive.catalog import CatalogEntry
from ctray.config import RunConfig
from ctray.core.errors import one_line
from ctray.formats.opening import open_as
from ctray.formats.source import VolumeSource
from ctray.learn.pretext.checkpoint import checkpoint_step
from ctray.learn.self_training.checkpoint import has_self_trained
from ctray.localization.localizer import Localizer
from ctray.localization.margins import Calibration
from ctray.localization.promise import calibration_of, with_promise
from ctray.localization.python_localize import record_of
from ctray.pipeline.cropping import Cut, is_open
from ctray.pipeline.volume_work import open_localizer
from ctray.preprocess.grey_maps import less_z_median, smoothed
from ctray.records.receipt_list import iter_receipts
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord, box_to_cut
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.working import is_reduced_to

# Numbers of slices for the guess, and limit on the bytes that are decompressed to read them.
_PLANES = 48
_FEWEST_PLANES = 12
_PLANE_BYTES = 256 * 2**20
_PLANE_SIDE = 128
_ROUGH_MARGIN = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """One volume of the sample.

    Parameters
    ----------
    volume_id
        Id of the volume.
    num_bytes, bytes_stored
        Bytes of level 0 uncompressed, and of its files; None if the store does not report them.
    saved
        Fraction of the volume that its crop leaves out; None if unknown.
    seconds
        Time of one process to read, localize and crop it.
    failed
        Reason why it could not be read.
    """

    volume_id: str
    num_bytes: int
    bytes_stored: int | None = None
    saved: float | None = None
    seconds: float | None = None
    failed: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A run's trained networks and calibration."""

    localizer: Localizer
    calibration: Calibration


def open_model(run: RunFolder, config: RunConfig) -> Model | None:
    """Return the networks of a run; None if its training is not finished."""
    if (checkpoint_step(run.checkpoint) or 0) < config.train.steps:
        return None
    if config.self_train.enabled and not has_self_trained(run.checkpoint):
        return None
    return Model(localizer=open_localizer(run, config), calibration=calibration_of(run))


def looks_of_receipts(
    run: RunFolder, config: RunConfig, entries: Sequence[CatalogEntry]
) -> dict[str, Look]:
    """Volumes that a run with these settings would skip, as looks from their receipts, by id."""
    sizes = {entry.volume_id: entry.num_bytes or 0 for entry in entries}
    cut = Cut.of(run, config)
    looks = {}
    for volume_id, receipt in iter_receipts(run, sizes):
        if receipt is not None and not is_open(receipt, True, cut):
            looks[volume_id] = _look_of_receipt(receipt, sizes[volume_id])
    return looks


def look_at(entry: CatalogEntry, config: RunConfig, model: Model | None) -> Look:
    """Read some slices of a volume, or its pyramid, and estimate its crop."""
    num_bytes = entry.num_bytes or 0
    try:
        opened = open_as(entry.url, entry.kind, dataset=entry.dataset, within=entry.within)
        with opened as source:
            stored = source.bytes_stored
            began = time.monotonic()
            planes, num_decoded = _read_planes(source, _depth(entry, source))
            per_byte = (time.monotonic() - began) / num_decoded
            kept = _kept_by_threshold(planes)
        if _is_zarr(entry):
            stored = store.tree_bytes(entry.url) or None
        localizing = 0.0
        if model is not None and not _needs_pass(entry, config):
            kept, localizing = _kept_by_model(entry, config, model)
    except Exception as error:  # A bad file must not end the plan.
        reason = one_line(error) or type(error).__name__
        return Look(volume_id=entry.volume_id, num_bytes=num_bytes, failed=reason)
    passes = (1.0 if _needs_pass(entry, config) else 0.0) + 2 * kept
    return Look(
        volume_id=entry.volume_id,
        num_bytes=num_bytes,
        bytes_stored=stored,
        saved=1 - kept,
        seconds=localizing + per_byte * num_bytes * passes,
    )


def _look_of_receipt(receipt: VolumeRecord, num_bytes: int) -> Look:
    """Return the volume of a receipt. Volumes that are not located are kept whole."""
    if receipt.status == "failed" or receipt.shape is None:
        return Look(volume_id=receipt.volume_id, num_bytes=num_bytes, failed=receipt.reason)
    kept = 1.0
    if receipt.status == "located":
        kept = sum(box.num_voxels for box in receipt.crop_boxes) / math.prod(receipt.shape)
    return Look(
        volume_id=receipt.volume_id,
        num_bytes=num_bytes,
        saved=1 - kept,
        seconds=receipt.seconds,
    )


def _kept_by_model(entry: CatalogEntry, config: RunConfig, model: Model) -> tuple[float, float]:
    """Return the fraction of a volume in its crop, and the seconds to find it."""
    volume = open_volume(entry.url)
    found = model.localizer.localize(volume)
    record = record_of(volume, found, model.localizer)
    record = with_promise(record, config.crop, model.calibration)
    if record.status != "located":
        return 1.0, found.seconds
    margined = box_to_cut(record, volume.shape)
    return margined.num_voxels / math.prod(volume.shape), found.seconds


def _kept_by_threshold(planes: npt.NDArray[np.float32]) -> float:
    """Return the fraction in the box of the largest difference from the median along z."""
    different = np.abs(less_z_median(smoothed(planes, 1.0)))
    if different.min() == different.max():
        return 1.0
    labels, count = ndimage.label(different > threshold_otsu(different))
    if not count:
        return 1.0
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    found = ndimage.find_objects(labels)[largest - 1]
    sides = [
        min(1.0, (where.stop - where.start) / extent + 2 * _ROUGH_MARGIN)
        for where, extent in zip(found, planes.shape, strict=True)
    ]
    return float(math.prod(sides))


def _read_planes(source: VolumeSource, depth: int) -> tuple[npt.NDArray[np.float32], int]:
    """Return evenly spaced slices, (n, <= 128, <= 128), and the bytes that were decoded."""
    z, y, x = source.shape
    layer_bytes = min(depth, z) * y * x * source.dtype.itemsize
    count = min(z, max(_FEWEST_PLANES, min(_PLANES, _PLANE_BYTES // layer_bytes)))
    places = np.unique(((np.arange(count) + 0.5) * z / count).astype(int))
    step = max(1, -(-max(y, x) // _PLANE_SIDE))
    planes = [_mean(source.read(int(place), int(place) + 1)[0], step) for place in places]
    return np.stack(planes), len(np.unique(places // depth)) * layer_bytes


def _mean(plane: npt.NDArray[Any], step: int) -> npt.NDArray[np.float32]:
    """Average cells of `step` pixels a side; incomplete cells are dropped."""
    height, width = (n // step * step for n in plane.shape)
    cells = plane[:height, :width].astype(np.float32)
    cells = np.nan_to_num(cells, posinf=0.0, neginf=0.0)
    averaged: npt.NDArray[np.float32] = cells.reshape(
        height // step, step, width // step, step
    ).mean((1, 3))
    return averaged


def _depth(entry: CatalogEntry, source: VolumeSource) -> int:
    """Return the number of slices that are decoded together."""
    return open_volume(entry.url).levels[0].chunk[0] if _is_zarr(entry) else source.slab_depth


def _is_zarr(entry: CatalogEntry) -> bool:
    return entry.kind in ("ome-zarr", "zarr")


def _needs_pass(entry: CatalogEntry, config: RunConfig) -> bool:
    """Whether a volume is read whole before localizing: for import or for its pyramid."""
    if not _is_zarr(entry):
        return True
    return not is_reduced_to(open_volume(entry.url), config.preprocess.working_size)
