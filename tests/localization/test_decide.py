"""The status of a volume, over all cases of what the two networks say."""

from __future__ import annotations

import pytest

from ctray.config import SelfTrainConfig
from ctray.core.geometry import Box
from ctray.localization.decide import (
    PretextVote,
    SelfTrainedVote,
    Verdict,
    decide,
    disagreement,
)

CONFIG = SelfTrainConfig(min_peak=3.0, min_agreement=0.5)
SMALL = Box(start=(0, 0, 0), stop=(4, 4, 4))
LARGE = Box(start=(0, 0, 0), stop=(4, 4, 12))
FAR = Box(start=(20, 20, 20), stop=(24, 24, 24))
NOTHING = "no slice is certain"

PRETEXT, ARCHIVE = "only the pretext task is sure", "looks like no other sample"


def pretext(box: Box | None, certainty: float = 0.3) -> PretextVote:
    return PretextVote(box=box, certainty=certainty, reason_if_empty=NOTHING)


def network(box: Box | None, peak: float = 9.0, *, clear: bool = False) -> SelfTrainedVote:
    return SelfTrainedVote(box=box, peak=peak, clear=clear)


@pytest.mark.parametrize(
    ("first", "second", "status", "reason", "box"),
    [
        # Without self-training the pretext task decides.
        (pretext(SMALL), None, "located", None, SMALL),
        (pretext(None), None, "empty", NOTHING, None),
        # The network is not sure of a sample: 3 is enough, 2 where the pretext task is sure.
        (pretext(SMALL), network(SMALL, 2.9), "empty", ARCHIVE, None),
        (pretext(SMALL, 0.6), network(SMALL, 2.0), "located", None, SMALL),
        (pretext(SMALL, 0.6), network(SMALL, 1.9), "uncertain", PRETEXT, SMALL),
        (pretext(SMALL, 0.6), network(None, 1.9), "uncertain", PRETEXT, SMALL),
        (pretext(None, 0.6), network(SMALL, 2.9), "empty", ARCHIVE, None),
        # Both are: their boxes agree or not.
        (pretext(SMALL), network(SMALL), "located", None, SMALL),
        (pretext(LARGE), network(SMALL), "uncertain", "differ", SMALL),
        (pretext(None), network(SMALL), "uncertain", "finds no sample and the self", SMALL),
        (pretext(SMALL), network(None), "uncertain", "finds a sample and the self", SMALL),
        (pretext(None), network(None), "empty", NOTHING, None),
        # A clear scan outvotes the pretext task within its box only.
        (pretext(LARGE), network(SMALL, clear=True), "located", None, SMALL),
        (pretext(FAR), network(SMALL, clear=True), "uncertain", "differ", SMALL),
        (pretext(None), network(SMALL, clear=True), "uncertain", "finds no sample", SMALL),
    ],
)
def test_status_reason_and_box(
    first: PretextVote,
    second: SelfTrainedVote | None,
    status: str,
    reason: str | None,
    box: Box | None,
) -> None:
    found = decide(first, second, CONFIG)
    assert isinstance(found, Verdict)
    assert (found.status, found.box) == (status, box)
    if reason is None:
        assert found.reason is None
    else:
        assert reason in (found.reason or "")


def test_who_disagrees_is_named() -> None:
    one, far = SMALL, Box(start=(2, 0, 0), stop=(6, 4, 4))
    assert disagreement(None, None, 0.5) is None
    assert disagreement(one, one, 1.0) is None
    assert "finds no sample" in (disagreement(None, one, 0.5) or "")
    assert "does not" in (disagreement(one, None, 0.5) or "")
    # Two of six slices are shared.
    assert "0.33" in (disagreement(one, far, 0.5) or "")
    assert disagreement(one, far, 0.3) is None
