"""Grey levels are made once, and looking at them changes nothing in them."""

from __future__ import annotations

import numpy as np
import pytest

from ctray.config import PreprocessConfig
from ctray.core.geometry import AxisFaces
from ctray.localization.grey_faces import find_grey_faces
from ctray.localization.grey_levels import GreyLevel, GreyLevels
from ctray.preprocess.prepare import Prepared, prepare
from ctray.volumes.multiscale import downsample_mean
from ctray.volumes.working import WorkingLevel

SIDE = 64


def scan(*, finer: bool) -> tuple[Prepared, WorkingLevel]:
    """A bright block in noise, at half its size and as it is."""
    rng = np.random.default_rng(3)
    fine = rng.normal(90, 2, (SIDE,) * 3).astype(np.float32)
    fine[20:44, 18:40, 22:46] += 60
    working = downsample_mean(fine, (2, 2, 2))
    level = WorkingLevel(
        voxels=working,
        factors=(2, 2, 2),
        finer=fine if finer else None,
        ratio=(2, 2, 2) if finer else (1, 1, 1),
    )
    plain = PreprocessConfig(circle="off", container="off", rings="off", drift="off", noise_floor=0)
    return prepare(working, (2, 2, 2), plain), level


def check_same(found: GreyLevel, expected: GreyLevel) -> None:
    assert found.ratio == expected.ratio
    np.testing.assert_array_equal(found.grey, expected.grey)
    np.testing.assert_array_equal(found.inside, expected.inside)


@pytest.mark.parametrize("finer", [True, False])
def test_levels_come_finest_first_and_the_finest_is_made_once(finer: bool) -> None:
    prepared, level = scan(finer=finer)
    expected = [GreyLevel.of_working(prepared, level.voxels)]
    if level.finer is not None:
        fine = GreyLevel.of_finer(prepared, level.voxels, level.finer, level.ratio)
        expected.insert(0, fine)
    levels = GreyLevels(prepared, level)

    found = list(levels)

    for ours, theirs in zip(found, expected, strict=True):
        check_same(ours, theirs)
    assert levels.finest is found[0]
    assert next(iter(levels)) is found[0]


def test_finest_level_is_as_it_was_after_faces_were_looked_for_in_it() -> None:
    """What comes next reads the same array."""
    prepared, level = scan(finer=True)
    levels = GreyLevels(prepared, level)
    guess = AxisFaces.of([10.0, 22.0, 9.0, 20.0, 11.0, 23.0])
    assert any(faces is not None for faces in find_grey_faces(levels.finest, [guess]))
    check_same(levels.finest, GreyLevels(prepared, level).finest)
