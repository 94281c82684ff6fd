"""The last look at a box: what goes on beyond it makes it grow, or leaves it to a person."""

from __future__ import annotations

import numpy as np
import pytest

from ctray.core.geometry import AxisFaces, Box
from ctray.localization.grey_levels import GreyLevel
from ctray.localization.last_look import LastLook, find_cut_pieces, take_last_look

SHAPE = (30, 40, 50)
BODY = (slice(8, 22), slice(12, 28), slice(15, 35))
BODY_BOX = Box.from_ranges([[8, 22], [12, 28], [15, 35]])
FOURFOLD = Box.from_ranges([[32, 88], [48, 112], [60, 140]])


def scan(*pieces: tuple[slice, slice, slice], noise: float = 2.0) -> GreyLevel:
    """A body of 160 and pieces of 120 in a medium of 60."""
    grey = np.full(SHAPE, 60.0)
    for piece in pieces:
        grey[piece] = 120
    grey[BODY] = 160
    grey += np.random.default_rng(0).normal(0, noise, SHAPE)
    inside = np.ones(SHAPE, dtype=bool)
    return GreyLevel(grey=grey.clip(0, 255).astype(np.float32), inside=inside, ratio=(1, 1, 1))


def look(level: GreyLevel, scales: AxisFaces[float] | None, factor: int = 4) -> LastLook:
    """At a volume `factor` times as fine, whose box holds the body."""
    shape = (SHAPE[0] * factor, SHAPE[1] * factor, SHAPE[2] * factor)
    box = FOURFOLD if factor == 4 else BODY_BOX
    return take_last_look(level, (factor,) * 3, box, scales, shape)


EAR = (slice(12, 18), slice(18, 23), slice(35, 40))
FAR = (slice(2, 6), slice(2, 6), slice(44, 49))
# The same in all slices, from the body to the border: a bed, or a tube that the sample touches.
BED = (slice(0, 30), slice(26, 30), slice(0, 50))


def test_a_whole_sample_leaves_nothing_beyond_its_box() -> None:
    assert find_cut_pieces(scan(), BODY_BOX) is None


def test_a_piece_that_goes_on_is_found_and_held() -> None:
    found = find_cut_pieces(scan(EAR), BODY_BOX)
    assert found is not None
    # Without its first voxel, which may be blur, and with a voxel of blur around the rest.
    body = 14 * 16 * 20
    assert 6 * 5 * 4 <= found.fraction * body <= 8 * 7 * 6
    # To a voxel: the smoothed edge of a piece reaches further than its half.
    np.testing.assert_allclose(found.box.ranges, [[8, 22], [12, 28], [15, 40]], atol=1)


@pytest.mark.parametrize("other", [FAR, BED])
def test_what_lies_apart_or_is_the_same_in_all_slices_is_no_piece(
    other: tuple[slice, slice, slice],
) -> None:
    assert find_cut_pieces(scan(other), BODY_BOX) is None


def test_noise_is_no_piece() -> None:
    assert find_cut_pieces(scan(noise=25.0), BODY_BOX) is None


def test_without_medium_nothing_is_known() -> None:
    assert find_cut_pieces(scan(EAR), Box.from_ranges([[0, 30], [0, 40], [0, 40]])) is None


def test_a_box_grows_by_a_small_piece_and_keeps_its_other_faces() -> None:
    found = look(scan(EAR), AxisFaces.of([4.0] * 6))
    assert found.doubt is None
    assert found.cut_fraction > 0
    z, y, x = found.box.ranges
    assert (z, y, x[0]) == ([32, 88], [48, 112], 60)
    assert 4 * 40 <= x[1] <= 4 * 41


def test_margins_that_hold_a_piece_need_no_larger_box() -> None:
    found = look(scan(EAR), AxisFaces.of([4.0] * 5 + [32.0]))
    assert (found.box, found.cut_fraction, found.doubt) == (FOURFOLD, 0.0, None)


def test_a_box_that_would_have_to_grow_much_is_left_to_a_person() -> None:
    half = Box.from_ranges([[8, 22], [12, 28], [15, 20]])
    found = take_last_look(scan(EAR), (1, 1, 1), half, AxisFaces.of([1.0] * 6), SHAPE)
    assert found.box == half
    assert found.doubt is not None
    assert "goes on beyond" in found.doubt
    assert found.to_json() == {"cut_fraction": round(found.cut_fraction, 5), "doubt": True}


def test_without_scales_the_margin_is_a_plain_one() -> None:
    assert look(scan(EAR), None).box.ranges[2][1] > FOURFOLD.ranges[2][1]
