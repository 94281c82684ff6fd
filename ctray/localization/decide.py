"""The status of a volume, decided in one place from all evidence about it.

`decide` is a pure function. It applies these rules in order; the first that applies decides:

1. The volume cannot be processed: `failed`.
2. The volume has an earlier status other than `located`: keep that status.
3. All voxels have the same grey value: `empty`.
4. The self-trained network shows no sample: `empty`, or `uncertain` if the pretext task is sure of
   one.
5. The pretext task and the self-trained network contradict each other, and grey values do not
   confirm the network: `uncertain`.
6. No box was found: `empty`.
7. The sample extends beyond the box, too far for the box to grow: `uncertain`.
8. A face is more open than any face in the calibration: `uncertain`.
9. Otherwise: `located`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctray.core.geometry import Box
from ctray.localization.params import PARAMS
from ctray.records.volume_record import Status

_PARAMS = PARAMS.decision


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Status of a volume and the reason in one line; a located volume has no reason."""

    status: Status
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkEvidence:
    """Finding of the self-trained network.

    Parameters
    ----------
    box
        Box of the network; None if an axis shows no sample.
    is_sample
        Whether the peak log-odds of the network are high enough (`self_train.min_peak`).
    is_clear
        Whether grey values separate the sample from its medium and place the faces.
    min_agreement
        Minimum intersection over union with the box of the pretext task.
    """

    box: Box | None
    is_sample: bool
    is_clear: bool
    min_agreement: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Evidence for the status of a volume; a default means that the evidence was not collected.

    Parameters
    ----------
    failure
        Reason why the volume cannot be processed.
    before
        Status and reason of a volume that was localized earlier.
    is_constant
        Whether all voxels have the same grey value.
    pretext_box, pretext_is_sure
        Box of the pretext task, and whether the task is sure of it along every axis.
    reason_if_empty
        Reason why the pretext task finds no sample, if it finds none.
    network
        Finding of the self-trained network; None without self-training.
    cut_off
        Doubt of the last look: pieces of the sample extend beyond the box.
    open_fraction, calibrated_fraction
        Scale of the most open face, as a fraction of its axis, and the largest such fraction in the
        calibration. None if unknown or not needed.
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
        # If grey values confirm the network, a pretext box around the network's box contains more
        # than the sample: streaks, for example.
        if doubt and not (network.is_clear and _mostly_inside(network.box, pretext_box)):
            return Verdict(status="uncertain", reason=doubt)
    if evidence.box is None:
        return Verdict(status="empty", reason=evidence.reason_if_empty)
    return Verdict(status="located")


def disagreement(pretext: Box | None, network: Box | None, min_agreement: float) -> str | None:
    """Reason why the boxes of the pretext task and the network contradict each other, or None.

    Parameters
    ----------
    pretext, network
        The boxes of the pretext task and of the self-trained network.
    min_agreement
        Minimum intersection over union at which the boxes agree.
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
