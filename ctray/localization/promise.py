"""What a crop promises: its margins, from the calibration, and when nothing can be promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ctray.config import CropConfig, RunConfig
from ctray.config.box_settings import changed_box_settings
from ctray.errors import CtrayError, NotFoundError
from ctray.geometry import Box, Triple, as_triple
from ctray.localization.margins import Calibration, expand_faces, margins_of, shipped_calibration
from ctray.storage import store
from ctray.storage.instance_receipt import InstanceReceipt
from ctray.storage.run_folder import Receipt, RunFolder, Status

PromiseKind = Literal["calibrated", "not calibrated", "fixed margin"]

# Least margin, as a fraction of the axis, where no calibration holds: twice the mean error of a
# face, 2.4% of the side, on ten real scans that nothing had been tuned on.
SAFE_MARGIN = 0.05
_SAID: dict[str, str] = {
    "not calibrated": "not calibrated: no loss rate is stated",
    "fixed margin": "fixed margin: no loss rate is stated",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of a volume, and what may be said of its crop.

    Parameters
    ----------
    status
        That of the volume; `uncertain` instead of `located` where a face is too open.
    promise
        `calibrated`: a rate is stated; `not calibrated` and `fixed margin`: none is; None where
        the volume is not located, and nothing of its crop is decided.
    too_open
        Whether a face is more open than any of the calibration.
    """

    status: Status
    promise: PromiseKind | None
    too_open: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """A decision with its reason, the margins and the rate; fields as those of `Receipt`."""

    status: Status
    reason: str | None
    promise: PromiseKind | None
    margins: list[int]
    max_loss: float | None = None
    coverage: float | None = None


def decide_promise(
    *,
    status: Status,
    fixed_margin: bool,
    holds: bool,
    largest: float | None,
    largest_known: float,
    several: bool,
) -> Decision:
    """Whether a crop states a rate, says that it states none, or the volume is for review.

    Parameters
    ----------
    status
        As localized.
    fixed_margin
        Whether `crop.margin` was given, which asks for no promise.
    holds
        Whether the calibration is of boxes that were found with the same settings.
    largest
        How open the most open face is, as a fraction of its axis; None where that is not known.
    largest_known
        The same, over all volumes of the calibration.
    several
        Whether several specimens have a crop each. The calibration is of whole volumes, and
        evidence between specimens may belong to neither.
    """
    if status != "located":
        return Decision(status=status, promise=None)
    if fixed_margin:
        return Decision(status=status, promise="fixed margin")
    if largest is not None and largest > largest_known:
        return Decision(status="uncertain", promise="not calibrated", too_open=True)
    if holds and largest is not None and not several:
        return Decision(status=status, promise="calibrated")
    return Decision(status=status, promise="not calibrated")


def make_promise(
    *,
    status: Status,
    reason: str | None,
    scales: Sequence[float] | None,
    instance_scales: Sequence[Sequence[float]],
    shape: Triple,
    digest: str | None,
    crop: CropConfig,
    calibration: Calibration,
) -> Promise:
    """Decision about one volume, with the margins of the box around all of its sample.

    Parameters
    ----------
    status, reason
        As localized.
    scales, instance_scales
        How open the six faces are, level-0 voxels: of that box, and of each of several specimens.
    shape
        Of level 0.
    digest
        `box_settings_digest` of the boxes.
    crop
        What is asked of crops.
    calibration
        At hand; it need not hold.
    """
    known = [] if scales is None else [scales, *instance_scales]
    open_fractions = [s / shape[i // 2] for six in known for i, s in enumerate(six)]
    largest = max(open_fractions, default=None)
    decision = decide_promise(
        status=status,
        fixed_margin=crop.margin is not None,
        holds=calibration.holds_for(digest),
        largest=largest,
        largest_known=calibration.largest_scale,
        several=bool(instance_scales),
    )
    if decision.too_open:
        reason = (
            f"a face is open over {largest:.0%} of its axis, more than in any volume of the "
            f"calibration ({calibration.largest_scale:.0%})"
        )
    stated = decision.promise == "calibrated"
    return Promise(
        status=decision.status,
        reason=reason,
        promise=decision.promise,
        margins=margins_for(scales, shape, digest, crop, calibration),
        max_loss=crop.max_loss if stated else None,
        coverage=crop.coverage if stated else None,
    )


def margins_for(
    scales: Sequence[float] | None,
    shape: Triple,
    digest: str | None,
    crop: CropConfig,
    calibration: Calibration,
) -> list[int]:
    """Margins of the six faces in level-0 voxels; see `make_promise`.

    Where the calibration holds they are its factor times the scales. Elsewhere they are the larger
    factor of it and of the package's own, and `SAFE_MARGIN` of the axis at least.
    """
    if crop.margin is not None:
        return _fractions(crop.margin, shape)
    safe = _fractions(SAFE_MARGIN, shape)
    if scales is None:
        return safe
    factor = calibration.factor(crop.max_loss, crop.coverage)
    if calibration.holds_for(digest):
        return list(margins_of(scales, factor))
    usual = CropConfig()
    factor = max(factor, shipped_calibration().factor(usual.max_loss, usual.coverage))
    return [max(a, b) for a, b in zip(margins_of(scales, factor), safe, strict=True)]


def _fractions(fraction: float, shape: Triple) -> list[int]:
    """`fraction` of the axis of each of the six faces, in voxels."""
    return [math.ceil(fraction * n) for n in shape for _ in range(2)]


def is_too_open(receipt: Receipt) -> bool:
    """Whether a volume is `uncertain` only because a face is more open than its calibration knows.

    Nothing is promised of volumes that are uncertain for another reason; see `decide_promise`.
    """
    return receipt.status == "uncertain" and receipt.promise is not None


def with_promise(receipt: Receipt, crop: CropConfig, calibration: Calibration) -> Receipt:
    """Receipt with margins and what is promised; `uncertain` where a face is too open.

    Specimens have margins by the same rule. A face that was too open for another margin or
    calibration is decided anew. A volume without a box is returned as it is.
    """
    if receipt.sample_box is None or receipt.shape is None:
        return receipt
    shape, digest = as_triple(receipt.shape, "shape"), receipt.box_settings_digest
    instances = receipt.instances or []
    again = is_too_open(receipt)
    made = make_promise(
        status="located" if again else receipt.status,
        reason=None if again else receipt.reason,
        scales=receipt.scales,
        instance_scales=[instance.scales for instance in instances],
        shape=shape,
        digest=digest,
        crop=crop,
        calibration=calibration,
    )
    wide = [
        replace(i, margins=margins_for(i.scales, shape, digest, crop, calibration))
        for i in instances
    ]
    return replace(
        receipt,
        status=made.status,
        reason=made.reason,
        promise=made.promise,
        margins=made.margins,
        max_loss=made.max_loss,
        coverage=made.coverage,
        instances=wide or receipt.instances,
    )


def box_to_cut(receipt: Receipt | InstanceReceipt, shape: Triple) -> Box:
    """Box of the sample with its margins, before it snaps: rather too big than a cut tail."""
    assert receipt.sample_box is not None, "volumes without a box have no crop"
    assert receipt.margins is not None, "margins come before crops"
    return expand_faces(receipt.sample_box, receipt.margins, shape)


def promise_text(
    promise: str | None, max_loss: float | None = None, coverage: float | None = None
) -> str:
    """What is promised of a crop, in one line; empty where there is no crop."""
    if promise == "calibrated" and max_loss is not None and coverage is not None:
        return f"at most {max_loss:.2%} lost, stated for {coverage:.0%} of volumes"
    return _SAID.get(promise or "", "")


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


def calibration_beside(checkpoint_url: str) -> Calibration:
    """Calibration of the run that a checkpoint lies in; see `calibration_of`."""
    folder = store.normalize(checkpoint_url).rpartition("/")[0]
    if folder.endswith(":/"):  # The root of a store lies in no run.
        return shipped_calibration()
    return calibration_of(RunFolder(url=folder or "/"))


def check_promise(run: RunFolder, config: RunConfig) -> None:
    """Raise `ConfigError` if no calibration at hand can keep what `crop` promises."""
    if config.refine.enabled and config.crop.margin is None:
        calibration_of(run).factor(config.crop.max_loss, config.crop.coverage)


def why_not_calibrated(digest: str | None, config: RunConfig, calibration: Calibration) -> str:
    """Why a calibration states no rate for boxes that a configuration found, in one line.

    Parameters
    ----------
    digest
        `box_settings_digest` of the boxes.
    config
        What they were found with.
    calibration
        The one at hand.
    """
    if calibration.holds_for(digest):
        return "several specimens in one volume; the calibration is of whole volumes"
    if not calibration.box_settings:
        return "the calibration is of an earlier version and does not tell its settings"
    changed = changed_box_settings(config, calibration.box_settings)
    if not changed:
        return "the calibration is of another version of the method"
    return f"other settings than those of the calibration: {', '.join(changed)}"
