"""Pieces that stand out: specks, bubbles and sample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ctray.localization.pieces import find_sample, pieces_inside

SIDE = 40
SHAPE = (SIDE,) * 3
BODY = np.s_[10:26, 10:26, 10:26]
SMALL = np.s_[14:19, 14:19, 30:35]
EVERYWHERE = np.ones(SHAPE, dtype=bool)


def scene(body: float, small: float) -> np.ndarray:
    contrast = np.random.default_rng(5).normal(0, 1, SHAPE)
    contrast[BODY] += body
    contrast[SMALL] += small
    return contrast.astype(np.float32)


def kept(contrast: np.ndarray, boxed: np.ndarray = EVERYWHERE, least: float = 0.5) -> np.ndarray:
    found = pieces_inside(np.abs(contrast) > 20, boxed, least, contrast)
    assert found is not None
    return found


@pytest.mark.parametrize("body", [100.0, -100.0])
@pytest.mark.parametrize("small", [100.0, -100.0])
def test_small_piece_is_sample_if_it_is_as_bright_or_dark_as_the_largest(
    body: float, small: float
) -> None:
    found = kept(scene(body, small))
    assert found[BODY].all()
    assert found[SMALL].all() == (np.sign(body) == np.sign(small))


def test_bubble_with_a_bright_rim_is_dark_still() -> None:
    bubble = np.zeros(SHAPE, dtype=bool)
    bubble[SMALL] = True
    contrast = scene(100.0, -100.0)
    contrast[ndimage.binary_dilation(bubble) & ~bubble] = 30.0
    assert not kept(contrast)[SMALL].any()


def test_large_piece_is_no_bubble() -> None:
    """A second specimen, whose mean differs from the first one's."""
    contrast = scene(100.0, 0.0)
    contrast[28:38, 10:26, 10:26] -= 100
    assert kept(contrast)[28:38, 10:26, 10:26].all()


def test_nothing_is_a_bubble_beside_a_sample_that_is_dark_and_bright() -> None:
    contrast = scene(100.0, -100.0)
    contrast[10:26, 10:26, 10:18] -= 200
    assert kept(contrast)[SMALL].all()


def test_specks_and_what_lies_beyond_the_box_are_left_out() -> None:
    contrast = scene(100.0, 100.0)
    contrast[2:5, 2:5, 2:5] += 100  # 27 of 4,096 voxels
    found = kept(contrast)
    assert found[SMALL].all()
    assert not found[2:5, 2:5, 2:5].any()
    boxed = EVERYWHERE.copy()
    boxed[:, :, 32:] = False  # three of its five columns
    assert not kept(contrast, boxed)[SMALL].any()
    assert kept(contrast, boxed, least=0.3)[SMALL].all()


def test_no_piece_at_all() -> None:
    contrast = scene(0.0, 0.0)
    assert pieces_inside(np.abs(contrast) > 20, EVERYWHERE, 0.5, contrast) is None


def test_lowest_threshold_that_the_medium_stays_below() -> None:
    contrast = scene(100.0, 0.0)
    boxed = np.zeros(SHAPE, dtype=bool)
    boxed[8:28, 8:28, 8:28] = True
    found = find_sample(contrast, EVERYWHERE, boxed)
    assert found is not None
    sample, threshold = found
    assert threshold < 6
    assert sample[BODY].all()
    assert np.count_nonzero(sample) < 1.1 * 16**3
    assert find_sample(scene(0.0, 0.0), EVERYWHERE, boxed) is None
