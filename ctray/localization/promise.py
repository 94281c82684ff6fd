"""The promise of a crop: its margins by the calibration, and whether a rate is stated."""

from __future__ import annotations

import math
from dataclasses import replace

from ctray.config import CropConfig, RunConfig
from ctray.config.box_settings import changed_box_settings
from ctray.core.errors import CtrayError, NotFoundError
from ctray.core.geometry import AxisFaces, Triple, as_triple
from ctray.localization.decide import Evidence, Verdict, decide
from ctray.localization.margins import (
    Calibration,
    largest_fraction,
    margins_of,
    shipped_calibration,
)
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import PromiseKind, VolumeRecord
from ctray.storage import store

# Minimum margin, as a fraction of the axis, if no calibration holds. It is twice the mean error of
# a face (2.4% of the side) on ten real scans that were not used for tuning.
SAFE_MARGIN = 0.05


def is_too_open(record: VolumeRecord) -> bool:
    """Whether a volume is `uncertain` only because a face is too open for the calibration.

    A volume that is uncertain for another reason has no promise; see `with_promise`.
    """
    return record.status == "uncertain" and record.promise is not None


def with_promise(record: VolumeRecord, crop: CropConfig, calibration: Calibration) -> VolumeRecord:
    """Record with margins and promise; its status is `uncertain` if a face is too open.

    Specimens get margins by the same rule. A volume that was uncertain only because a face was too
    open is decided again. A record without a box is returned unchanged.

    Parameters
    ----------
    record
        Record of a localized volume.
    crop
        Settings of crops.
    calibration
        Calibration of the run or of the package. It need not hold for these boxes.
    """
    if record.sample_box is None or record.shape is None:
        return record
    shape, digest = as_triple(record.shape, "shape"), record.box_settings_digest
    specimens = record.specimens or []
    largest = None
    if record.scales is not None:
        every = [record.scales, *(specimen.scales for specimen in specimens)]
        largest = max(largest_fraction(scales, shape) for scales in every)
    before = Verdict(status=record.status, reason=record.reason)
    if is_too_open(record):
        before = Verdict(status="located")
    verdict = decide(
        Evidence(
            before=before,
            open_fraction=largest,
            # A fixed margin has no promise, so the calibration sets no limit.
            calibrated_fraction=calibration.largest_scale if crop.margin is None else None,
        )
    )
    promise = None
    if before.status == "located":
        promise = promise_of(
            fixed_margin=crop.margin is not None,
            holds=calibration.holds_for(digest),
            is_located=verdict.status == "located",
            knows_scales=largest is not None,
            several=bool(specimens),
        )
    is_stated = promise == "calibrated"
    return replace(
        record,
        status=verdict.status,
        reason=verdict.reason,
        promise=promise,
        margins=margins_for(record.scales, shape, digest, crop, calibration),
        max_loss=crop.max_loss if is_stated else None,
        coverage=crop.coverage if is_stated else None,
        specimens=[
            replace(s, margins=margins_for(s.scales, shape, digest, crop, calibration))
            for s in specimens
        ]
        or record.specimens,
    )


def promise_of(
    *, fixed_margin: bool, holds: bool, is_located: bool, knows_scales: bool, several: bool
) -> PromiseKind:
    """Promise for a volume that was localized as `located`.

    Parameters
    ----------
    fixed_margin
        Whether `crop.margin` was given. A fixed margin has no promise.
    holds
        Whether the calibration was made from boxes that were found with the same settings.
    is_located
        Whether the volume is still located: no face is more open than the most open face of
        the calibration.
    knows_scales
        Whether the scales of the faces are known.
    several
        Whether the volume has several specimens, each with its own crop. The calibration covers
        whole volumes only, and evidence between specimens may belong to none of them.
    """
    if fixed_margin:
        return "fixed margin"
    if holds and is_located and knows_scales and not several:
        return "calibrated"
    return "not calibrated"


def margins_for(
    scales: AxisFaces[float] | None,
    shape: Triple,
    digest: str | None,
    crop: CropConfig,
    calibration: Calibration,
) -> AxisFaces[int]:
    """Margins of the faces in level-0 voxels; see `with_promise`.

    If the calibration holds, the margins are its factor times the scales. Otherwise the factor is
    the larger of this calibration's and the package's, and each margin is at least `SAFE_MARGIN` of
    the axis.
    """
    if crop.margin is not None:
        return _fractions(crop.margin, shape)
    safe = _fractions(SAFE_MARGIN, shape)
    if scales is None:
        return safe
    factor = calibration.factor(crop.max_loss, crop.coverage)
    if calibration.holds_for(digest):
        return margins_of(scales, factor)
    usual = CropConfig()
    factor = max(factor, shipped_calibration().factor(usual.max_loss, usual.coverage))
    return margins_of(scales, factor).combine(safe, max)


def _fractions(fraction: float, shape: Triple) -> AxisFaces[int]:
    """Margins of `fraction` times the axis of each face, in voxels, rounded up."""
    return AxisFaces.both_sides([math.ceil(fraction * n) for n in shape])


def calibration_of(run: RunFolder) -> Calibration:
    """Calibration of a run: its own if `ctray calibrate` wrote one, otherwise the package's."""
    try:
        data = store.read_json(run.calibration)
    except NotFoundError:
        return shipped_calibration()
    try:
        return Calibration.from_json(data)
    except CtrayError as error:
        raise CtrayError(
            f"{run.calibration} is damaged: {error}; make it again with ctray calibrate, or delete "
            "it to use the calibration that comes with ctray"
        ) from error


def calibration_beside(checkpoint_url: str) -> Calibration:
    """Calibration of the run that contains a checkpoint; see `calibration_of`."""
    folder = store.normalize(checkpoint_url).rpartition("/")[0]
    if folder.endswith(":/"):  # The root of a store is outside any run.
        return shipped_calibration()
    return calibration_of(RunFolder(url=folder or "/"))


def check_promise(run: RunFolder, config: RunConfig) -> None:
    """Raise `ConfigError` if the run's calibration cannot keep the promise of `crop`."""
    if config.self_train.enabled and config.crop.margin is None:
        calibration_of(run).factor(config.crop.max_loss, config.crop.coverage)


def why_not_calibrated(digest: str | None, config: RunConfig, calibration: Calibration) -> str:
    """Reason, in one line, why a calibration states no rate for the boxes of a configuration.

    Parameters
    ----------
    digest
        `box_settings_digest` of the boxes.
    config
        Settings with which the boxes were found.
    calibration
        Calibration that was used.
    """
    if calibration.holds_for(digest):
        return "several specimens in one volume; the calibration is of whole volumes"
    if not calibration.box_settings:
        return "the calibration does not tell its settings"
    changed = changed_box_settings(config, calibration.box_settings)
    if not changed:
        return "the calibration is of another version of the method"
    return f"other settings than those of the calibration: {', '.join(changed)}"
