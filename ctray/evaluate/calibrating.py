"""Calibrating margins on runs over volumes with known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import recorded_config
from ctray.config.box_settings import box_settings
from ctray.core.errors import ConfigError, NotFoundError
from ctray.core.geometry import AxisFaces, Box
from ctray.evaluate.truth import Truth, iter_mask, read_truths
from ctray.localization.margins import Calibration, calibrate
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store


def calibrate_runs(
    runs: Sequence[tuple[RunFolder, str]],
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Calibration from the located volumes of runs and their truth.

    This also includes volumes that need review only because the scale of a face exceeded an earlier
    calibration. Otherwise, no calibration could ever contain such scales.

    Parameters
    ----------
    runs
        Runs with self-training, all with the same settings, each with the URL of its truth; see
        `ctray.evaluate.truth.read_truths`. Without a mask, all voxels of the true box count as
        sample.
    progress
        Called with (done, total).

    Raises
    ------
    NotFoundError
        If no located volume has a truth.
    ConfigError
        If the boxes were found with different settings.
    """
    usable = [pair for run, truth_url in runs for pair in _usable(run, read_truths(truth_url))]
    names = ", ".join(run.url for run, _ in runs)
    if not usable:
        truths = ", ".join(truth_url for _, truth_url in runs)
        raise NotFoundError(
            f"{names} shares no located volume with {truths}; localize with self-training "
            "(self_train.enabled) before calibrating"
        )
    digest = _common_digest([receipt for receipt, _ in usable])

    def volumes() -> Iterator[tuple[Box, AxisFaces[float], npt.NDArray[np.bool_]]]:
        for done, (receipt, truth) in enumerate(usable, 1):
            assert receipt.sample_box is not None, "only volumes with a box are usable"
            assert receipt.scales is not None, "and with open faces"
            yield receipt.sample_box, receipt.scales, _sample(truth)
            if progress is not None:
                progress(done, len(usable))

    found = calibrate(volumes(), f"{len(usable)} volumes of {names}", digest)
    return replace(found, box_settings=_settings_of(runs[0][0]))


def calibrate_run(
    run: RunFolder, truth_url: str, progress: Callable[[int, int], None] | None = None
) -> Calibration:
    """Calibration from one run; see `calibrate_runs`."""
    return calibrate_runs([(run, truth_url)], progress)


def _usable(run: RunFolder, truths: dict[str, Truth]) -> Iterator[tuple[VolumeRecord, Truth]]:
    for receipt in run.receipts():
        truth = truths.get(receipt.volume_id)
        too_open = receipt.status == "uncertain" and receipt.promise == "not calibrated"
        if (
            (receipt.status == "located" or too_open)
            and receipt.scales is not None
            and receipt.sample_box is not None
            and truth is not None
            and truth.box is not None
        ):
            yield receipt, truth


def _common_digest(receipts: Sequence[VolumeRecord]) -> str:
    digests = {receipt.box_settings_digest: receipt.volume_id for receipt in receipts}
    if len(digests) > 1:
        (one, first), (other, second), *_ = digests.items()
        raise ConfigError(
            f"boxes were found with different settings ({first}: {one}, {second}: {other}); "
            "calibrate on boxes that were found in one way"
        )
    (digest,) = digests
    assert digest is not None, "receipts of located volumes hold the digest of their settings"
    return digest


def _settings_of(run: RunFolder) -> dict[str, Any]:
    """Settings behind the digest; empty if the run has no manifest."""
    try:
        manifest = store.read_json(run.manifest)
    except NotFoundError:
        return {}
    return box_settings(recorded_config(manifest["config"], source=run.manifest))


def _sample(truth: Truth) -> npt.NDArray[np.bool_]:
    if truth.mask_url is not None:
        return np.concatenate([slab for _, slab in iter_mask(truth)])
    mask = np.zeros(truth.shape, dtype=bool)
    if truth.box is not None:
        mask[truth.box.slices] = True
    return mask
