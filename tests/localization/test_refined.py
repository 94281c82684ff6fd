"""Faces of the slab network, put where grey values have them."""

from __future__ import annotations

import numpy as np
import pytest

from ctray.geometry import AXES, Box
from ctray.localization.clear_faces import GreyLevel
from ctray.localization.faces import Faces
from ctray.localization.refined import Refined, sharpened

SIDE = 40


def refined(box: Box | None) -> Refined:
    """What a network says that has the faces of `box` open by 3 slices."""
    faces: dict[str, Faces | None] = dict.fromkeys(AXES)
    if box is not None:
        for name, (a, b) in zip(AXES, box.ranges, strict=True):
            faces[name] = Faces(start=a, stop=b, spread=(3.0, 3.0), thresholds=(-1.0, -1.0))
    return Refined(profiles={}, faces=faces, factors=(2, 2, 2), shape=(2 * SIDE,) * 3)


def level(*blocks: Box, noise: float = 1.0, ratio: int = 1) -> GreyLevel:
    grey = np.random.default_rng(5).normal(60, noise, (SIDE * ratio,) * 3).astype(np.float32)
    for block in blocks:
        grey[tuple(slice(ratio * a, ratio * b) for a, b in block.ranges)] += 100
    return GreyLevel(grey=grey, inside=np.ones(grey.shape, bool), ratio=(ratio,) * 3)


BLOCK = Box(start=(10, 12, 14), stop=(28, 26, 30))
OFF = Box(start=(9, 12, 14), stop=(28, 28, 30))


@pytest.mark.parametrize("ratio", [1, 2])
def test_clear_faces_take_the_place_of_the_network_s(ratio: int) -> None:
    (found,) = sharpened([refined(OFF)], [level(BLOCK, ratio=ratio)])

    assert found.clear
    assert found.to_json()["clear"] is True
    assert found.box is not None
    assert found.box.ranges == [[2 * a, 2 * b] for a, b in BLOCK.ranges]
    scales = found.scales()
    assert scales is not None
    # A slice of two voxels, half the edge's width, and an eighth of what lies between the ways.
    z0, z1, y0, y1, x0, x1 = scales
    assert 2.0 <= min(z1, y0, x0, x1) <= max(z1, y0, x0, x1) < 3.5
    assert z0 == pytest.approx(z1 + 0.125 * 2, abs=0.2)
    assert y1 == pytest.approx(y0 + 0.125 * 4, abs=0.2)


def test_first_level_that_tells_is_taken() -> None:
    noisy = level(BLOCK, noise=80.0, ratio=2)
    (found,) = sharpened([refined(OFF)], [noisy, level(BLOCK)])
    assert found.clear
    assert sharpened([refined(OFF)], [noisy]) == [refined(OFF)]


def test_without_a_box_there_is_nothing_to_sharpen() -> None:
    assert sharpened([refined(None)], [level(BLOCK)]) == [refined(None)]
    assert sharpened([refined(OFF)], []) == [refined(OFF)]


def test_specimens_are_sharpened_one_by_one() -> None:
    """One of them is faint: its faces stay with the network."""
    near, far = Box(start=(4, 4, 4), stop=(14, 14, 14)), Box(start=(24, 24, 24), stop=(36, 36, 36))
    found = sharpened([refined(near), refined(far)], [level(near)])
    assert [f.clear for f in found] == [True, False]
    assert found[1] == refined(far)
