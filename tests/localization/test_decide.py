"""The status of a volume: every case of the decision as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctray.core.geometry import Box
from ctray.localization.decide import Evidence, NetworkEvidence, Verdict, decide, disagreement

ONE = Box(start=(0, 0, 0), stop=(4, 4, 4))
# Two of the six slabs of both boxes together are shared.
FAR = Box(start=(2, 0, 0), stop=(6, 4, 4))
# More than half of it lies in ONE, and the intersection over union is a quarter.
PART = Box(start=(3, 0, 0), stop=(4, 4, 4))

NOTHING = "no slice is certain"
DIFFER = "the boxes of the pretext task and of the self-trained network differ"
NO_SAMPLE = "what stands out looks like no other sample of the archive"
ONLY_PRETEXT = "only the pretext task is sure of a sample"


def pretext(box: Box | None, *, sure: bool = False, **more: object) -> Evidence:
    evidence = Evidence(pretext_box=box, pretext_is_sure=sure, reason_if_empty=NOTHING)
    return replace(evidence, **more)  # type: ignore[arg-type]


def network(box: Box | None, *, sample: bool = True, clear: bool = False) -> NetworkEvidence:
    return NetworkEvidence(box=box, is_sample=sample, is_clear=clear, min_agreement=0.5)


# Evidence, status, beginning of the reason.
TABLE = {
    "cannot be read": (Evidence(failure="truncated"), "failed", "truncated"),
    "failure comes first": (
        Evidence(failure="truncated", before=Verdict(status="located")),
        "failed",
        "truncated",
    ),
    "one grey value": (Evidence(is_constant=True), "empty", "all voxels have the same"),
    # The pretext task alone.
    "pretext finds": (pretext(ONE), "located", None),
    "pretext finds nothing": (pretext(None), "empty", NOTHING),
    # With self-training.
    "both agree": (pretext(ONE, network=network(ONE)), "located", None),
    "both agree, pretext sure": (pretext(ONE, sure=True, network=network(ONE)), "located", None),
    "neither finds": (pretext(None, network=network(None)), "empty", NOTHING),
    "they differ": (pretext(ONE, network=network(FAR)), "uncertain", DIFFER),
    "pretext alone finds": (
        pretext(ONE, network=network(None)),
        "uncertain",
        "the pretext task finds a sample and",
    ),
    "network alone finds": (
        pretext(None, network=network(ONE)),
        "uncertain",
        "the pretext task finds no sample and",
    ),
    "no sample by the network": (
        pretext(ONE, network=network(ONE, sample=False)),
        "empty",
        NO_SAMPLE,
    ),
    "no sample by the network, pretext sure": (
        pretext(ONE, sure=True, network=network(ONE, sample=False)),
        "uncertain",
        ONLY_PRETEXT,
    ),
    "no sample nor box by the network, pretext sure": (
        pretext(ONE, sure=True, network=network(None, sample=False)),
        "uncertain",
        ONLY_PRETEXT,
    ),
    # Grey values confirm the self-trained network.
    "clear within the pretext's box": (
        pretext(ONE, network=network(PART, clear=True)),
        "located",
        None,
    ),
    "within it, not clear": (pretext(ONE, network=network(PART)), "uncertain", DIFFER),
    "clear, half outside": (pretext(ONE, network=network(FAR, clear=True)), "uncertain", DIFFER),
    "clear, no box of the pretext": (
        pretext(None, network=network(ONE, clear=True)),
        "uncertain",
        "the pretext task finds no sample and",
    ),
    # What lies beyond the box.
    "cut off": (pretext(ONE, cut_off="it goes on"), "uncertain", "it goes on"),
    "empty and cut off": (pretext(None, cut_off="it goes on"), "empty", NOTHING),
    # How open the faces are, against the calibration.
    "as open as calibrated": (
        pretext(ONE, open_fraction=0.2, calibrated_fraction=0.2),
        "located",
        None,
    ),
    "more open": (
        pretext(ONE, open_fraction=0.21, calibrated_fraction=0.2),
        "uncertain",
        "a face is open over 21% of its axis, more than in any volume of the calibration (20%)",
    ),
    "openness not known": (pretext(ONE, calibrated_fraction=0.2), "located", None),
    "fixed margin": (pretext(ONE, open_fraction=0.9), "located", None),
    # What was decided before.
    "located before": (Evidence(before=Verdict(status="located")), "located", None),
    "located before, too open": (
        Evidence(before=Verdict(status="located"), open_fraction=0.21, calibrated_fraction=0.2),
        "uncertain",
        "a face is open over 21%",
    ),
    "uncertain before, too open": (
        Evidence(
            before=Verdict(status="uncertain", reason="they differ"),
            open_fraction=0.21,
            calibrated_fraction=0.2,
        ),
        "uncertain",
        "they differ",
    ),
    "empty before": (Evidence(before=Verdict(status="empty", reason=NOTHING)), "empty", NOTHING),
    "failed before": (
        Evidence(before=Verdict(status="failed", reason="truncated")),
        "failed",
        "truncated",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_status_and_reason(case: str) -> None:
    evidence, status, reason = TABLE[case]
    verdict = decide(evidence)
    assert verdict.status == status
    assert (verdict.reason is None) == (reason is None)
    assert (verdict.reason or "").startswith(reason or "")


def test_only_a_located_volume_has_no_reason() -> None:
    for evidence, _, _ in TABLE.values():
        verdict = decide(evidence)
        assert (verdict.reason is None) == (verdict.status == "located")


def test_box_of_the_network_comes_first() -> None:
    assert pretext(ONE).box == ONE
    assert pretext(ONE, network=network(FAR)).box == FAR
    assert pretext(ONE, network=network(None)).box == ONE
    assert pretext(None).box is None


def test_disagreement_names_who_finds_what() -> None:
    assert disagreement(None, None, 0.5) is None
    assert disagreement(ONE, ONE, 1.0) is None
    assert "finds no sample" in (disagreement(None, ONE, 0.5) or "")
    assert "does not" in (disagreement(ONE, None, 0.5) or "")
    assert "0.33" in (disagreement(ONE, FAR, 0.5) or "")
    assert disagreement(ONE, FAR, 0.3) is None
