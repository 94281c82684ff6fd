"""What a crop promises: the decision as a table, and the margins that go with it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctray.config import CropConfig, RunConfig, override
from ctray.config.box_settings import box_settings, box_settings_digest
from ctray.core.geometry import AxisFaces, Box
from ctray.localization.margins import LOSSES, Calibration, shipped_calibration
from ctray.localization.promise import (
    SAFE_MARGIN,
    calibration_beside,
    is_too_open,
    promise_of,
    why_not_calibrated,
    with_promise,
)
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord, box_to_cut
from ctray.storage import store

DIGEST = box_settings_digest(RunConfig())


def test_rate_is_stated_in_one_case_alone() -> None:
    """Over all combinations: a calibration holds, scales are known, one box, no fixed margin."""
    names = ("fixed_margin", "holds", "is_located", "knows_scales", "several")
    promises = {}
    for values in itertools.product((False, True), repeat=len(names)):
        promises[values] = promise_of(**dict(zip(names, values, strict=True)))
    stated = [values for values, promise in promises.items() if promise == "calibrated"]
    assert stated == [(False, True, True, True, False)]
    fixed = [values for values, promise in promises.items() if promise == "fixed margin"]
    assert fixed == [values for values in promises if values[0]]


def calibration(**changes: Any) -> Calibration:
    """Factor 2 whatever is asked for."""
    values: dict[str, Any] = {
        "scores": dict.fromkeys(LOSSES, (2.0,) * 40),
        "largest_scale": 0.2,
        "about": "by hand",
        "box_settings_digest": DIGEST,
        "box_settings": box_settings(RunConfig()),
    }
    return Calibration(**{**values, **changes})


def located(**changes: Any) -> VolumeRecord:
    values: dict[str, Any] = {
        "volume_id": "a",
        "source_url": "/a",
        "status": "located",
        "sample_box": Box(start=(40, 40, 40), stop=(60, 60, 60)),
        "scales": AxisFaces(1.0, 1.5, 1.0, 1.0, 1.0, 12.0),
        "shape": [100, 200, 100],
        "box_settings_digest": DIGEST,
    }
    return VolumeRecord(**{**values, **changes})


def test_margins_are_the_factor_times_the_scales_where_the_calibration_holds() -> None:
    promised = with_promise(located(), CropConfig(), calibration())
    assert promised.margins == (2, 3, 2, 2, 2, 24)
    assert (promised.promise, promised.max_loss, promised.coverage) == ("calibrated", 0.001, 0.95)
    assert box_to_cut(promised, (100, 200, 100)).ranges == [[38, 63], [38, 62], [38, 84]]


@pytest.mark.parametrize(
    "changes",
    [
        "train.steps=1",
        "preprocess.working_size=504",
        "preprocess.container=off",
        "self_train.steps=300",
        "self_train.clear_faces=off",
        "localize.spreads=4",
        "task=sorting",
    ],
)
def test_other_settings_have_a_safe_margin_and_no_rate(changes: str) -> None:
    other = box_settings_digest(override(RunConfig(), (changes,)))
    promised = with_promise(located(box_settings_digest=other), CropConfig(), calibration())
    assert (promised.promise, promised.max_loss, promised.coverage) == (
        "not calibrated",
        None,
        None,
    )
    usual = CropConfig()
    factor = max(2.0, shipped_calibration().factor(usual.max_loss, usual.coverage))
    # 5% of 100 and of 200 voxels; the last face is more open than that.
    assert promised.margins is not None
    assert promised.margins[:5] == (5, 5, 10, 10, 5)
    assert promised.margins[5] >= 12 * factor
    assert pytest.approx(0.05) == SAFE_MARGIN


def test_safe_margin_is_never_below_the_packages_own_factor() -> None:
    """A run's own calibration of other settings may be an easy one."""
    easy = calibration(scores=dict.fromkeys(LOSSES, (0.0,) * 40), box_settings_digest="other")
    promised = with_promise(located(), CropConfig(), easy)
    usual = CropConfig()
    factor = shipped_calibration().factor(usual.max_loss, usual.coverage)
    assert promised.margins is not None
    assert promised.margins[5] >= 12 * factor


def test_calibration_without_a_digest_holds_for_nothing() -> None:
    assert not calibration(box_settings_digest=None).holds_for(None)
    receipt = located(box_settings_digest=None)
    promised = with_promise(receipt, CropConfig(), calibration(box_settings_digest=None))
    assert promised.promise == "not calibrated"


def test_without_self_training_the_margin_is_a_fraction_of_the_axis() -> None:
    promised = with_promise(located(scales=None), CropConfig(), calibration())
    assert (promised.promise, promised.margins) == ("not calibrated", (5, 5, 10, 10, 5, 5))


def test_fixed_margin_promises_nothing_and_refuses_nothing() -> None:
    receipt = located(scales=AxisFaces.of([90.0] * 6))
    promised = with_promise(receipt, CropConfig(margin=0.1), calibration())
    assert (promised.status, promised.promise) == ("located", "fixed margin")
    assert promised.margins == (10, 10, 20, 20, 10, 10)
    assert promised.max_loss is None


def test_face_that_is_more_open_than_any_calibrated_one_is_for_review() -> None:
    receipt = located(scales=AxisFaces.of([1.0] * 5 + [21.0]))
    promised = with_promise(receipt, CropConfig(), calibration())
    assert promised.status == "uncertain"
    assert "21% of its axis, more than in any volume of the calibration (20%)" in (
        promised.reason or ""
    )


def test_face_that_was_too_open_is_decided_anew() -> None:
    narrow, wide = calibration(largest_scale=0.11), calibration(largest_scale=0.2)
    fixed = CropConfig(margin=0.1)
    review = with_promise(located(), CropConfig(), narrow)
    assert is_too_open(review)
    assert with_promise(review, CropConfig(), narrow) == review
    for crop, known in ((CropConfig(), wide), (fixed, narrow)):
        assert with_promise(review, crop, known) == with_promise(located(), crop, known)
    again = with_promise(with_promise(review, fixed, narrow), CropConfig(), narrow)
    assert again == review


def test_volume_for_review_keeps_its_reason_and_states_nothing() -> None:
    receipt = located(status="uncertain", reason="the boxes differ")
    promised = with_promise(receipt, CropConfig(), calibration())
    assert (promised.reason, promised.promise) == ("the boxes differ", None)
    assert promised.max_loss is None
    empty = replace(receipt, status="empty", sample_box=None, scales=None)
    assert with_promise(empty, CropConfig(), calibration()) == empty


def test_calibration_of_the_run_that_a_checkpoint_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = RunFolder(url=str(tmp_path / "run"))
    store.write_json(own.calibration, calibration().to_json())
    assert not calibration_beside(f"{own.url}/checkpoint/").shipped
    monkeypatch.chdir(own.url)
    assert not calibration_beside("checkpoint").shipped
    for elsewhere in ("/checkpoint", "memory://checkpoint", f"{tmp_path}/other/checkpoint"):
        assert calibration_beside(elsewhere).shipped


def test_text_of_a_promise() -> None:
    stated = located(promise="calibrated", max_loss=0.001, coverage=0.95)
    assert stated.promise_text == "at most 0.10% lost, stated for 95% of volumes"
    assert located(promise="not calibrated").promise_text.startswith("not calibrated")
    assert located(promise="fixed margin").promise_text.startswith("fixed margin")
    assert located().promise_text == ""


def test_why_a_run_is_not_calibrated() -> None:
    other = override(RunConfig(), ("train.steps=700", "preprocess.working_size=96"))
    digest = box_settings_digest(other)
    why = why_not_calibrated(digest, other, calibration())
    assert why.endswith(": preprocess.working_size, train.steps")
    assert "several specimens" in why_not_calibrated(DIGEST, RunConfig(), calibration())
    older = calibration(box_settings_digest="sha256:before")
    assert "another version" in why_not_calibrated(DIGEST, RunConfig(), older)
    silent = calibration(box_settings_digest=None, box_settings={})
    assert "does not tell its settings" in why_not_calibrated(DIGEST, RunConfig(), silent)
