"""The status of a volume, from what the pretext task and the self-trained network find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctray.config import SelfTrainConfig
from ctray.core.geometry import Box
from ctray.localization.params import PARAMS

_PARAMS = PARAMS.decision


@dataclass(frozen=True, kw_only=True, slots=True)
class PretextVote:
    """What the pretext task says.

    Parameters
    ----------
    box
        At level 0; None where it finds no sample.
    certainty
        Of the surest slice, of the axis where that is least.
    reason_if_empty
        What is missing where there is no box.
    """

    box: Box | None
    certainty: float
    reason_if_empty: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTrainedVote:
    """What the self-trained network says.

    Parameters
    ----------
    box
        At level 0; None where it finds no sample.
    peak
        Log-odds of the surest slice, of the axis where they are least.
    clear
        Whether the scan is clear, and grey values agree with the network.
    """

    box: Box | None
    peak: float
    clear: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Status of a volume, its reason in one line, and its box at level 0."""

    status: Literal["located", "empty", "uncertain"]
    reason: str | None = None
    box: Box | None = None


def decide(
    pretext: PretextVote, network: SelfTrainedVote | None, config: SelfTrainConfig
) -> Verdict:
    """Status, reason and box of a volume.

    Parameters
    ----------
    pretext, network
        The two votes; None without self-training.
    config
        What the network must reach.
    """
    if network is None:
        if pretext.box is None:
            return Verdict(status="empty", reason=pretext.reason_if_empty)
        return Verdict(status="located", box=pretext.box)
    guess = network.box or pretext.box
    sure = pretext.box is not None and pretext.certainty > _PARAMS.sure
    if network.peak < config.min_peak - (_PARAMS.peak_relief if sure else 0.0):
        if sure:
            reason = "only the pretext task is sure of a sample"
            return Verdict(status="uncertain", reason=reason, box=guess)
        reason = "what stands out looks like no other sample of the archive"
        return Verdict(status="empty", reason=reason)
    contradiction = disagreement(pretext.box, network.box, config.min_agreement)
    # Where grey values agree with the network, a box around its box stands alone: the pretext
    # task's box may be larger by streaks, say.
    stands_alone = network.clear and _mostly_inside(network.box, pretext.box)
    if contradiction is not None and not stands_alone:
        return Verdict(status="uncertain", reason=contradiction, box=guess)
    if network.box is None:
        return Verdict(status="empty", reason=pretext.reason_if_empty)
    return Verdict(status="located", box=network.box)


def disagreement(pretext: Box | None, network: Box | None, min_agreement: float) -> str | None:
    """Why two boxes contradict each other, in one line; None if they do not.

    Parameters
    ----------
    pretext, network
        Of the pretext task, and of the self-trained network.
    min_agreement
        Smallest intersection over union at which they agree.
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
