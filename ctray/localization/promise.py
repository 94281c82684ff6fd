"""What a crop promises: its margins, from the calibration, and when nothing can be promised."""

from __future__ import annotations

import math
from dataclasses import replace

from ctray.config import RefineConfig, RunConfig
from ctray.errors import CtrayError, NotFoundError
from ctray.geometry import Box, Triple
from ctray.localization.margins import Calibration, expand_faces, shipped_calibration
from ctray.storage import store
from ctray.storage.instance_receipt import InstanceReceipt
from ctray.storage.run_folder import Receipt, RunFolder

# Margin as part of the axis where the slab network was not asked.
_PLAIN_MARGIN = 0.02


def calibration_of(run: RunFolder) -> Calibration:
    """Calibration of a run: its own where `ctray calibrate` wrote one, else the package's."""
    try:
        data = store.read_json(run.calibration)
    except NotFoundError:
        return shipped_calibration()
    try:
        return Calibration.from_json(data)
    except CtrayError as error:
        raise CtrayError(
            f"{run.calibration} is damaged: {error}; make it anew with ctray calibrate, or delete "
            "it to use the calibration that comes with ctray"
        ) from error


def check_promise(run: RunFolder, config: RunConfig) -> None:
    """Raise `ConfigError` if no calibration at hand can keep what `crop` promises."""
    if config.refine.enabled and config.crop.margin is None:
        calibration_of(run).factor(config.crop.max_loss, config.crop.coverage)


def with_promise(receipt: Receipt, config: RunConfig, calibration: Calibration) -> Receipt:
    """Receipt with the margins that keep the loss small; `uncertain` where nothing is known of it.

    Without scales, from a run without self-training, or with a fixed margin, nothing is promised.
    Nor is anything of the crops of several specimens, which have margins by the same rule: the
    calibration is of whole volumes, and evidence between specimens may belong to neither. The
    package's own calibration is of faces as the defaults have them: with others it gives margins
    and promises nothing.
    """
    if receipt.scales is None or receipt.shape is None or config.crop.margin is not None:
        return receipt
    instances = receipt.instances or []
    open_faces = [receipt.scales, *(instance.scales for instance in instances)]
    largest = max(s / receipt.shape[i // 2] for six in open_faces for i, s in enumerate(six))
    if receipt.status == "located" and largest > calibration.largest_scale:
        return replace(
            receipt,
            status="uncertain",
            reason=f"a face is open over {largest:.0%} of its axis, more than in any volume of the "
            f"calibration ({calibration.largest_scale:.0%})",
        )
    factor = calibration.factor(config.crop.max_loss, config.crop.coverage)
    kept = not instances and not (calibration.shipped and _other_faces(config))
    promised = [replace(i, margins=_margins(i.scales, factor)) for i in instances]
    return replace(
        receipt,
        margins=_margins(receipt.scales, factor),
        instances=promised or receipt.instances,
        max_loss=config.crop.max_loss if kept else None,
        coverage=config.crop.coverage if kept else None,
    )


def _other_faces(config: RunConfig) -> bool:
    ours, usual = config.refine, RefineConfig()
    return (ours.threshold, ours.clear_faces) != (usual.threshold, usual.clear_faces)


def with_margin(receipt: Receipt | InstanceReceipt, shape: Triple, config: RunConfig) -> Box:
    """Box of the crop before it snaps: rather too big than a cut tail."""
    part = _PLAIN_MARGIN if config.crop.margin is None else config.crop.margin
    fixed = [math.ceil(part * n) for n in shape for _ in range(2)]
    margins = fixed if receipt.margins is None else receipt.margins
    return expand_faces(Box.from_ranges(receipt.box or []), margins, shape)


def _margins(scales: list[float], factor: float) -> list[int]:
    return [math.ceil(factor * scale) for scale in scales]
