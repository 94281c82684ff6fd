"""The status of a volume, decided in one place from all that is known of it.

`decide` is a pure function. Its rules come in this order, and the first that applies decides:

1. The volume cannot be worked on: `failed`.
2. It was decided before, and as anything but `located`: that stays.
3. All voxels have the same grey value: `empty`.
4. The self-trained network shows no sample: `empty`, or `uncertain` if the pretext task is sure of
   one.
5. Pretext task and self-trained network contradict each other, and grey values do not settle it:
   `uncertain`.
6. No box was found: `empty`.
7. The sample goes on beyond the box, too far for the box to grow: `uncertain`.
8. A face is more open than any in the calibration: `uncertain`.
9. Else: `located`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctray.core.geometry import Box
from ctray.localization.params import PARAMS
from ctray.records.volume_record import Status

_PARAMS = PARAMS.decision


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Status of a volume and the reason in one line; no reason for a located one."""

    status: Status
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkEvidence:
    """Finding of the self-trained network.

    Parameters
    ----------
    box
        Its box; None if an axis shows no sample.
    is_sample
        Whether its surest slices are sure enough (`self_train.min_peak`).
    is_clear
        Whether grey values tell the sample from its medium, and the faces are where they do.
    min_agreement
        Least intersection over union with the box of the pretext task.
    """

    box: Box | None
    is_sample: bool
    is_clear: bool
    min_agreement: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known of a volume when its status is decided; defaults say that nobody looked.

    Parameters
    ----------
    failure
        Why the volume cannot be worked on.
    before
        Status and reason of a volume that was localized before.
    is_constant
        Whether all voxels have the same grey value.
    pretext_box, pretext_is_sure
        Box of the pretext task, and whether the task is sure of it along every axis.
    reason_if_empty
        Why the pretext task finds no sample, if it finds none.
    network
        Finding of the self-trained network; None without self-training.
    cut_off
        What of the sample goes on beyond the box.
    open_fraction, calibrated_fraction
        How open the most open face is, as a fraction of its axis; and the same over all volumes of
        the calibration. None if it does not matter.
    """

    failure: str | None = None
    before: Verdict | None = None
    is_constant: bool = False
    pretext_box: Box | None = None
    pretext_is_sure: bool = False
    reason_if_empty: str | None = None
    network: NetworkEvidence | None = None
    cut_off: str | None = None
    open_fraction: float | None = None
    calibrated_fraction: float | None = None

    @property
    def box(self) -> Box | None:
        """Box of the self-trained network, or of the pretext task if the network has none."""
        return (self.network.box if self.network else None) or self.pretext_box


def decide(evidence: Evidence) -> Verdict:
    """Status of a volume and its reason; see the rules of this module."""
    if evidence.failure is not None:
        return Verdict(status="failed", reason=evidence.failure)
    verdict = evidence.before or _localized(evidence)
    if verdict.status != "located":
        return verdict
    doubt = evidence.cut_off or _too_open(evidence.open_fraction, evidence.calibrated_fraction)
    return Verdict(status="uncertain", reason=doubt) if doubt else verdict


def _localized(evidence: Evidence) -> Verdict:
    if evidence.is_constant:
        return Verdict(status="empty", reason="all voxels have the same grey value")
    network, pretext_box = evidence.network, evidence.pretext_box
    if network is not None:
        if not network.is_sample and evidence.pretext_is_sure:
            return Verdict(status="uncertain", reason="only the pretext task is sure of a sample")
        if not network.is_sample:
            reason = "what stands out looks like no other sample of the archive"
            return Verdict(status="empty", reason=reason)
        doubt = disagreement(pretext_box, network.box, network.min_agreement)
        # Where grey values confirm the network, a box around its box is of more than the sample:
        # of streaks, for example.
        if doubt and not (network.is_clear and _mostly_inside(network.box, pretext_box)):
            return Verdict(status="uncertain", reason=doubt)
    if evidence.box is None:
        return Verdict(status="empty", reason=evidence.reason_if_empty)
    return Verdict(status="located")


def disagreement(pretext: Box | None, network: Box | None, min_agreement: float) -> str | None:
    """Why the boxes of the pretext task and of the network contradict each other; None if not.

    Parameters
    ----------
    pretext, network
        The boxes of the pretext task and of the self-trained network.
    min_agreement
        Least intersection over union at which they agree.
    """
    if pretext is None and network is None:
        return None
    if pretext is None:
        return "the pretext task finds no sample and the self-trained network does"
    if network is None:
        return "the pretext task finds a sample and the self-trained network does not"
    iou = pretext.iou(network)
    if iou < min_agreement:
        return (
            "the boxes of the pretext task and of the self-trained network differ "
            f"(intersection over union {iou:.2f})"
        )
    return None


def _mostly_inside(box: Box | None, around: Box | None) -> bool:
    common = box.intersection(around) if box and around else None
    return (
        box is not None
        and common is not None
        and common.num_voxels > _PARAMS.mostly * box.num_voxels
    )


def _too_open(fraction: float | None, calibrated: float | None) -> str | None:
    if fraction is None or calibrated is None or fraction <= calibrated:
        return None
    return (
        f"a face is open over {fraction:.0%} of its axis, more than in any volume of the "
        f"calibration ({calibrated:.0%})"
    )
