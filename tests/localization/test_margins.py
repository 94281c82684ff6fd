"""Margins: the smallest sufficient factor by hand, and the promise over many draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ctray.core.errors import ConfigError, CtrayError
from ctray.core.geometry import AxisFaces, Box
from ctray.localization.margins import (
    LOSSES,
    Calibration,
    calibrate,
    margins_of,
    shipped_calibration,
)


def _mask(box: Box, shape: tuple[int, int, int] = (20, 20, 20)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[box.slices] = True
    return mask


def _all(scale: float) -> AxisFaces[float]:
    return AxisFaces.both_sides([scale] * 3)


def test_score_is_the_smallest_factor_that_reaches_the_sample() -> None:
    sample = Box(start=(5, 5, 5), stop=(15, 15, 15))
    short = Box(start=(5, 5, 5), stop=(15, 15, 12))

    found = calibrate([(short, _all(2.0), _mask(sample))], "by hand")

    # Three voxels are missing on x1; with a scale of 2 a factor of 1.125 gives ceil(2.25) = 3.
    assert found.scores[0.0] == (1.125,)
    # Of 1,000 voxels 300 are lost, 200 with one voxel more, 100 with two: never a twentieth.
    assert found.scores[0.05] == (1.125,)


def test_loss_that_is_allowed_needs_less() -> None:
    sample = Box(start=(0, 0, 0), stop=(20, 20, 20))
    short = Box(start=(0, 0, 0), stop=(20, 20, 18))

    found = calibrate([(short, _all(1.0), _mask(sample))], "by hand")

    # One voxel of margin leaves a twentieth outside.
    assert found.scores[0.05] == (0.125,)
    assert found.scores[0.01] == (1.125,)


def test_volume_that_no_factor_saves_counts_as_never_kept() -> None:
    far = _mask(Box(start=(0, 0, 19), stop=(1, 1, 20)))
    found = calibrate([(Box(start=(0, 0, 0), stop=(1, 1, 1)), _all(0.01), far)], "by hand")

    assert math.isinf(found.scores[0.0][0])
    with pytest.raises(ConfigError, match="cannot be promised"):
        found.factor(0.0, 0.4)


def test_empty_volumes_take_no_part() -> None:
    nothing = np.zeros((4, 4, 4), dtype=bool)
    found = calibrate([(Box(start=(0, 0, 0), stop=(1, 1, 1)), _all(1.0), nothing)], "empty")

    assert found.num_volumes == 0
    with pytest.raises(ConfigError):
        found.factor(0.1, 0.5)


def _calibration(scores: list[float]) -> Calibration:
    return Calibration(
        scores={loss: tuple(scores) for loss in LOSSES}, largest_scale=1.0, about="drawn"
    )


def test_factor_is_the_score_of_the_conformal_rank() -> None:
    found = _calibration([float(i) for i in range(1, 20)])

    # ceil(20 x 0.9) = 18, ceil(20 x 0.95) = 19; 0.96 would need a twentieth score.
    assert found.factor(0.001, 0.9) == 18.0
    assert found.factor(0.001, 0.95) == 19.0
    with pytest.raises(ConfigError, match=r"at most 0\.950"):
        found.factor(0.001, 0.96)


def test_loss_between_two_known_ones_takes_the_smaller() -> None:
    scores = {loss: (1 / (1 + loss),) * 9 for loss in LOSSES}
    found = Calibration(scores=scores, largest_scale=1.0, about="")

    assert found.factor(0.005, 0.5) == scores[0.001][0]


def test_coverage_of_new_draws_is_at_least_the_stated_one() -> None:
    rng = np.random.default_rng(5)
    kept = 0
    for _ in range(400):
        drawn = rng.gamma(2.0, 1.0, 40)
        kept += rng.gamma(2.0, 1.0) <= _calibration(sorted(drawn.tolist())).factor(0.001, 0.9)
    # 400 draws of 0.9 have a standard deviation of 0.015.
    assert kept / 400 > 0.9 - 3 * 0.015


def test_calibration_survives_its_file_with_what_is_never_kept() -> None:
    before = replace(
        _calibration([0.5, 1.25, math.inf]),
        box_settings_digest="sha256:01",
        box_settings={"train.steps": 7},
        made={"date": "2026-11-29", "machine": {"cores": 2}},
    )

    assert Calibration.from_json(before.to_json()) == before


def test_calibration_of_an_earlier_version_is_read_and_holds_for_nothing() -> None:
    data = _calibration([1.0] * 9).to_json()
    del data["box_settings_digest"], data["box_settings"]
    assert not Calibration.from_json(data).holds_for("sha256:01")


@pytest.mark.parametrize(
    "data", [{}, {"scores": {}, "largest_scale": 1, "about": ""}, {"scores": 3}]
)
def test_other_files_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(CtrayError, match="no calibration"):
        Calibration.from_json(data)


def test_shipped_calibration_keeps_the_default_promise() -> None:
    from ctray.config import CropConfig

    shipped, crop = shipped_calibration(), CropConfig()

    assert shipped.num_volumes >= 50
    assert 1 <= shipped.factor(crop.max_loss, crop.coverage) < 10


def test_shipped_calibration_is_of_the_defaults() -> None:
    """Whenever a default or the method changes: `ctray benchmark calibration --ship`."""
    from ctray.config import RunConfig
    from ctray.config.box_settings import box_settings, box_settings_digest

    shipped = shipped_calibration()
    if shipped.box_settings_digest is None:
        pytest.skip("the shipped calibration is of an earlier version, and holds for nothing")
    assert shipped.box_settings == box_settings(RunConfig())
    assert shipped.holds_for(box_settings_digest(RunConfig()))
    assert {"date", "machine", "ctray_version", "command"} <= shipped.made.keys()


def test_shipped_calibration_never_gives_less_than_what_a_face_is_open() -> None:
    # A promise that nearly everything keeps, whatever the margin.
    assert shipped_calibration().factor(0.05, 0.05) == 1.0
    assert _calibration([0.25] * 9).factor(0.05, 0.5) == 0.25


def test_each_face_moves_by_its_own_margin_and_stays_inside() -> None:
    box = Box(start=(1, 5, 5), stop=(10, 10, 19))

    wide = box.expand(AxisFaces(3, 1, 2, 0, 4, 5), (20, 20, 20))

    assert wide.ranges == [[0, 11], [3, 10], [1, 20]]
    assert margins_of(AxisFaces(1.0, 2.0, 3.0, 1.0, 1.0, 0.1), 1.5) == (2, 3, 5, 2, 2, 1)
