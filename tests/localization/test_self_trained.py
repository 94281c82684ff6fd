"""Faces of the self-trained network, put where grey values have them."""

from __future__ import annotations

import numpy as np
import pytest

from ctray.core.geometry import AXES, Box
from ctray.localization.grey_levels import GreyLevel
from ctray.localization.profile_faces import FacePair
from ctray.localization.self_trained import SelfTrainedFaces, sharpened

SIDE = 40


def by_network(box: Box | None, sure: Box | None = None) -> SelfTrainedFaces:
    """What a network says that has the faces of `box` open by 3 slices, and is sure of `sure`."""
    faces: dict[str, FacePair | None] = dict.fromkeys(AXES)
    profiles = {name: np.full(SIDE, -4.0) for name in AXES}
    if box is not None:
        for name, (a, b) in zip(AXES, box.ranges, strict=True):
            faces[name] = FacePair(start=a, stop=b, widths=(3.0, 3.0), thresholds=(-1.0, -1.0))
            profiles[name][a:b] = 1.0
        for name, (a, b) in zip(AXES, (sure or box.expand(-4, (SIDE,) * 3)).ranges, strict=True):
            profiles[name][a:b] = 10.0
    return SelfTrainedFaces(
        profiles=profiles, faces=faces, factors=(2, 2, 2), shape=(2 * SIDE,) * 3
    )


def level(*blocks: Box, noise: float = 1.0, ratio: int = 1) -> GreyLevel:
    grey = np.random.default_rng(5).normal(60, noise, (SIDE * ratio,) * 3).astype(np.float32)
    for block in blocks:
        grey[tuple(slice(ratio * a, ratio * b) for a, b in block.ranges)] += 100
    return GreyLevel(grey=grey, inside=np.ones(grey.shape, bool), ratio=(ratio,) * 3)


BLOCK = Box(start=(10, 12, 14), stop=(28, 26, 30))
OFF = Box(start=(9, 12, 14), stop=(28, 28, 30))


@pytest.mark.parametrize("ratio", [1, 2])
def test_clear_faces_take_the_place_of_the_network_s(ratio: int) -> None:
    (found,) = sharpened([by_network(OFF)], [level(BLOCK, ratio=ratio)])

    assert found.clear
    assert found.to_json()["clear"] is True
    assert found.box is not None
    assert found.box.ranges == [[2 * a, 2 * b] for a, b in BLOCK.ranges]
    scales = found.scales()
    assert scales is not None
    # A slice of two voxels, and as far as the network has it elsewhere.
    z0, z1, y0, y1, x0, x1 = scales
    assert (z0, y1) == pytest.approx((2.0, 4.0), abs=0.3)
    assert all(2.0 <= scale < 2.3 for scale in (z1, y0, x0, x1))
    z, y = found.faces["z"], found.faces["y"]
    assert z is not None
    assert y is not None
    # One slice between the ways at z0, two at y1.
    assert z.widths[0] - z.widths[1] == pytest.approx(0.25, abs=0.05)
    assert y.widths[1] - y.widths[0] == pytest.approx(0.5, abs=0.05)


def test_slices_that_the_network_is_sure_of_are_not_cut() -> None:
    """A tail fainter than what is looked for beside bright streaks, say."""
    tail = Box(start=(9, 12, 14), stop=(34, 26, 30))
    (found,) = sharpened([by_network(tail, sure=tail)], [level(BLOCK)])
    assert found.clear
    assert found.faces["z"] is not None
    assert found.faces["z"].stop == pytest.approx(34, abs=0.6)
    (other,) = sharpened([by_network(tail, sure=BLOCK)], [level(BLOCK)])
    assert other.faces["z"] is not None
    assert other.faces["z"].stop == pytest.approx(28, abs=0.6)


def test_faint_specimen_apart_is_not_cut() -> None:
    """Grey values are searched for what is as bright as the rest, and leave it out."""
    both = Box(start=(10, 12, 14), stop=(37, 26, 30))
    network = by_network(both, sure=BLOCK)
    network.profiles["z"][28:33] = -4.0
    (found,) = sharpened([network], [level(BLOCK)])
    assert found.clear
    z, own = found.faces["z"], network.faces["z"]
    assert z is not None
    assert own is not None
    assert z.start == pytest.approx(10, abs=0.6)
    assert z.stop == own.stop == 37
    # The same without a gap is what streaks leave beside a sample.
    network.profiles["z"][28:33] = 1.0
    (other,) = sharpened([network], [level(BLOCK)])
    assert other.faces["z"] is not None
    assert other.faces["z"].stop == pytest.approx(28, abs=0.6)


def test_face_that_grey_values_cannot_tell_is_as_open_as_the_network_has_it() -> None:
    cut = level(BLOCK)
    inside = cut.inside.copy()
    inside[25:] = False
    cut = GreyLevel(grey=cut.grey, inside=inside, ratio=(1, 1, 1))
    (found,) = sharpened([by_network(BLOCK)], [cut])
    assert found.faces["z"] is not None
    assert found.faces["z"].stop == 28
    assert found.faces["z"].widths[0] < 2
    assert found.faces["z"].widths[1] == 3


def test_first_level_that_tells_is_taken() -> None:
    noisy = level(BLOCK, noise=80.0, ratio=2)
    (found,) = sharpened([by_network(OFF)], [noisy, level(BLOCK)])
    assert found.clear
    assert not sharpened([by_network(OFF)], [noisy])[0].clear


def test_without_a_box_there_is_nothing_to_sharpen() -> None:
    assert not sharpened([by_network(None)], [level(BLOCK)])[0].clear
    assert not sharpened([by_network(OFF)], [])[0].clear


def test_specimens_are_sharpened_one_by_one() -> None:
    """One of them shows at one level only, one at none: its faces stay with the network."""
    near, far = Box(start=(4, 4, 4), stop=(14, 14, 14)), Box(start=(24, 24, 24), stop=(36, 36, 36))
    found = sharpened([by_network(near), by_network(far)], [level(near)])
    assert [f.clear for f in found] == [True, False]
    assert found[1].faces == by_network(far).faces
    found = sharpened([by_network(near), by_network(far)], [level(near), level(near, far)])
    assert [f.clear for f in found] == [True, True]
