"""Calibrating the margins of a run on volumes whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt

from ctray.errors import NotFoundError
from ctray.localization.margins import Calibration, Scales, calibrate
from ctray.localization.truth import Truth, iter_mask, read_truths
from ctray.storage.run_folder import RunFolder


def calibrate_run(
    run: RunFolder, truth_url: str, progress: Callable[[int, int], None] | None = None
) -> Calibration:
    """Calibration from the located volumes of a run and their truth.

    Parameters
    ----------
    run
        With receipts of a run with self-training.
    truth_url
        See `ctray.localization.truth.read_truths`. Where there is no mask the true box stands for
        the sample: all of its voxels count.
    progress
        Called with (done, total).

    Raises
    ------
    NotFoundError
        If no located volume has a truth.
    """
    truths = read_truths(truth_url)
    receipts = [
        r
        for r in run.receipts()
        if r.status == "located" and r.scales is not None and r.volume_id in truths
    ]
    usable = [r for r in receipts if truths[r.volume_id].box is not None]
    if not usable:
        raise NotFoundError(
            f"{run.url} shares no located volume with {truth_url}; localize with self-training "
            "(refine.enabled) before calibrating"
        )
    volumes = []
    for done, receipt in enumerate(usable, 1):
        box = receipt.sample_box
        if box is not None:
            scales = cast(Scales, tuple(receipt.scales or ()))
            volumes.append((box, scales, _sample(truths[receipt.volume_id])))
        if progress is not None:
            progress(done, len(usable))
    return calibrate(volumes, f"{len(volumes)} volumes of {run.url}")


def _sample(truth: Truth) -> npt.NDArray[np.bool_]:
    if truth.mask_url is not None:
        return np.concatenate([slab for _, slab in iter_mask(truth)])
    mask = np.zeros(truth.shape, dtype=bool)
    if truth.box is not None:
        mask[truth.box.slices] = True
    return mask
