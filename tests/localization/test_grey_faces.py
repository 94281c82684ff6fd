"""Faces where grey values tell the sample from its medium, and none where they do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctray.config import PreprocessConfig
from ctray.core.geometry import AxisFaces, Triple
from ctray.localization.grey_faces import GreyFaces, find_grey_faces
from ctray.localization.grey_levels import GreyLevel
from ctray.phantom import make_phantom, preset
from ctray.preprocess.prepare import prepare
from ctray.volumes.multiscale import downsample_mean

SIDE = 48
FloatArray = npt.NDArray[np.float32]
Pairs = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def scene(*blocks: tuple[Pairs, float], noise: float = 1.0, medium: float = 90.0) -> GreyLevel:
    """Blocks of other grey values than the medium's, in noise."""
    rng = np.random.default_rng(7)
    grey = np.full((SIDE,) * 3, medium, np.float32)
    for pairs, value in blocks:
        grey[tuple(slice(int(a), int(b)) for a, b in pairs)] = value
    # As an optical system does.
    grey = ndimage.gaussian_filter(grey, 0.5)
    grey += rng.normal(0, noise, grey.shape).astype(np.float32)
    return level_of(grey)


def level_of(grey: npt.NDArray[np.floating]) -> GreyLevel:
    inside = np.ones(grey.shape, dtype=bool)
    return GreyLevel(grey=grey.astype(np.float32), inside=inside, ratio=(1, 1, 1))


def flat(pairs: Pairs) -> AxisFaces[float]:
    return AxisFaces.of([place for pair in pairs for place in pair])


def moved(pairs: Pairs, steps: Sequence[float]) -> Pairs:
    z0, z1, y0, y1, x0, x1 = (e + s for e, s in zip(flat(pairs), steps, strict=True))
    return ((z0, z1), (y0, y1), (x0, x1))


def only(level: GreyLevel, guess: Pairs) -> GreyFaces | None:
    (faces,) = find_grey_faces(level, [flat(guess)])
    return faces


BLOCK: Pairs = ((14, 34), (12, 30), (16, 36))


@given(
    sizes=st.tuples(*[st.integers(8, 16)] * 3),
    starts=st.tuples(*[st.integers(12, 18)] * 3),
    contrast=st.sampled_from([-60.0, 40.0, 120.0]),
    steps=st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6),
)
@settings(max_examples=30)
def test_edges_of_a_block_are_found_to_half_a_voxel(
    sizes: Triple, starts: Triple, contrast: float, steps: list[float]
) -> None:
    (z, y, x), (dz, dy, dx) = starts, sizes
    block: Pairs = ((z, z + dz), (y, y + dy), (x, x + dx))

    faces = only(scene((block, 90 + contrast)), moved(block, steps))

    assert faces is not None
    outward = np.subtract(flat(faces.places.pairs), flat(block)) * np.tile([-1, 1], 3)
    assert outward.min() > -0.5, "nothing is cut"
    assert np.median(np.abs(outward)) < 0.5
    # Noise that touches the sample may pass for a tip of it.
    assert outward.max() < 4


def test_skin_on_bone_is_not_cut() -> None:
    skull: Pairs = ((17, 31), (15, 27), (19, 33))
    level = scene((BLOCK, 20.0), (skull, 230.0), medium=0.0)

    faces = only(level, BLOCK)

    assert faces is not None
    assert np.abs(np.subtract(flat(faces.places.pairs), flat(BLOCK))).max() < 0.8


def test_tail_that_the_network_missed_is_found() -> None:
    tail: Pairs = ((34, 40), (20, 23), (24, 27))
    faces = only(scene((BLOCK, 190.0), (tail, 190.0)), BLOCK)
    assert faces is not None
    assert faces.places.pairs[0][1] == pytest.approx(40, abs=0.6)


def test_slack_is_taken_off() -> None:
    loose = moved(BLOCK, (-5, 0, 0, 6, 0, 0))
    faces = only(scene((BLOCK, 190.0)), loose)
    assert faces is not None
    assert np.abs(np.subtract(flat(faces.places.pairs), flat(BLOCK))).max() < 0.5


def test_grain_beside_the_sample_is_not_sample() -> None:
    grain: Pairs = ((40, 43), (38, 41), (40, 43))
    faces = only(scene((BLOCK, 190.0), (grain, 250.0)), BLOCK)
    assert faces is not None
    assert np.abs(np.subtract(flat(faces.places.pairs), flat(BLOCK))).max() < 0.5


@pytest.mark.parametrize(("side", "is_sample"), [(3, True), (2, False)])
def test_small_piece_in_the_box_is_sample_and_a_speck_is_not(side: int, is_sample: bool) -> None:
    """With their blurred edges, a paw of 1.2 hundredths of the block, a grain of 0.5."""
    piece: Pairs = ((20, 20 + side), (18, 18 + side), (46 - side, 46))
    guess: Pairs = (BLOCK[0], BLOCK[1], (BLOCK[2][0], 46))
    faces = only(scene((BLOCK, 190.0), (piece, 190.0)), guess)
    assert faces is not None
    assert faces.places.pairs[2][1] == pytest.approx(46 if is_sample else BLOCK[2][1], abs=0.6)


@pytest.mark.parametrize(
    "level",
    [
        pytest.param(scene(noise=20.0), id="noise alone"),
        pytest.param(scene((BLOCK, 100.0), noise=25.0), id="sample below the noise"),
        pytest.param(scene(noise=0.0), id="nothing at all"),
    ],
)
def test_nothing_is_said_of_scans_that_are_not_clear(level: GreyLevel) -> None:
    assert only(level, BLOCK) is None


def test_box_that_lies_elsewhere_is_not_contradicted() -> None:
    """Three of six faces agree at least, or it is not the specimen that the network means."""
    elsewhere = moved(BLOCK, (-6, 6, -6, 6, 6, 6))
    assert only(scene((BLOCK, 190.0)), elsewhere) is None


def test_tube_that_goes_on_is_no_tail() -> None:
    rod: Pairs = ((0, 48), (20, 23), (24, 27))
    assert only(scene((BLOCK, 190.0), (rod, 190.0)), BLOCK) is None


def test_sample_that_fills_its_volume_leaves_no_medium_to_compare() -> None:
    whole: Pairs = ((0, SIDE), (0, SIDE), (0, SIDE))
    assert only(scene((whole, 190.0)), whole) is None


def test_sample_at_the_border_ends_there() -> None:
    block: Pairs = ((0, 20), (12, 30), (16, 36))
    faces = only(scene((block, 190.0)), moved(block, (0, 1, 1, 0, -1, 0)))
    assert faces is not None
    assert faces.places.pairs[0][0] == 0
    assert faces.places.pairs[0][1] == pytest.approx(20, abs=0.5)


def test_sample_that_the_field_of_view_cuts_goes_as_far_as_the_network_says() -> None:
    level = scene((BLOCK, 190.0))
    inside = level.inside.copy()
    inside[:, 27:] = False
    level = GreyLevel(grey=level.grey, inside=inside, ratio=(1, 1, 1))

    faces = only(level, moved(BLOCK, (1, -1, 1, 0, 1, -1)))

    assert faces is not None
    assert faces.places.pairs[1][1] == 30
    assert faces.widths.pairs[1][1] is None
    assert None not in (faces.widths.pairs[0] + faces.widths.pairs[2])
    off = np.abs(np.subtract(flat(faces.places.pairs), flat(BLOCK)))
    assert off.max() < 0.5


def test_specimens_have_their_own_faces() -> None:
    low: Pairs = ((6, 16), (10, 22), (10, 22))
    high: Pairs = ((26, 40), (22, 36), (20, 40))
    level = scene((low, 190.0), (high, 160.0))

    found = find_grey_faces(level, [flat(moved(low, (1,) * 6)), flat(moved(high, (-1,) * 6))])

    for faces, block in zip(found, (low, high), strict=True):
        assert faces is not None
        assert np.abs(np.subtract(flat(faces.places.pairs), flat(block))).max() < 0.5


def test_specimens_that_touch_are_left_to_the_network() -> None:
    low: Pairs = ((8, 22), (14, 30), (14, 30))
    high: Pairs = ((22, 40), (14, 30), (14, 30))
    found = find_grey_faces(scene((low, 190.0), (high, 190.0)), [flat(low), flat(high)])
    assert found == [None, None]


@pytest.mark.parametrize("kind", ["embryo", "fish"])
def test_finer_level_is_sharper_than_the_working_level(kind: str) -> None:
    spec = preset("easy", seed=3, index=1, size=96, kind=kind, container="tilted", rings=0.1)
    phantom = make_phantom(spec)
    assert phantom.box is not None
    working = downsample_mean(phantom.volume.astype(np.float32))
    prepared = prepare(working, (2, 2, 2), PreprocessConfig())
    guess = tuple((a / 2 - 1, b / 2 + 1) for a, b in phantom.box.ranges)
    errors = {}
    for level in (
        GreyLevel.of_finer(prepared, working, phantom.volume, (2, 2, 2)),
        GreyLevel.of_working(prepared, working),
    ):
        faces = only(level, (guess[0], guess[1], guess[2]))
        assert faces is not None
        off = np.subtract(2 * np.array(flat(faces.places.pairs)), phantom.box.faces)
        errors[level.ratio] = float(np.abs(off).mean())
    assert errors[2, 2, 2] < 1.0  # level-0 voxels; where the tube cuts it, the guess counts
    assert errors[2, 2, 2] < errors[1, 1, 1] < 2.5  # about a voxel of its own


@pytest.mark.parametrize("ratio", [(1, 2, 2), (2, 1, 3)])
def test_voxels_of_the_finer_level_need_not_be_cubes(ratio: Triple) -> None:
    scan = preset("easy", seed=3, index=1, size=(65, 64, 63), reconstruction_circle=False)
    phantom = make_phantom(scan)
    assert phantom.box is not None
    working = downsample_mean(phantom.volume.astype(np.float32), ratio)
    prepared = prepare(working, ratio, PreprocessConfig())
    sides = zip(phantom.box.ranges, ratio, strict=True)
    z, y, x = ((a / r + 0.5, b / r - 0.5) for (a, b), r in sides)

    faces = only(GreyLevel.of_finer(prepared, working, phantom.volume, ratio), (z, y, x))

    assert faces is not None
    off = np.array(flat(faces.places.pairs)) * np.repeat(ratio, 2) - phantom.box.faces
    assert np.abs(off).mean() < 0.7


def test_finer_level_is_treated_as_the_working_level_was() -> None:
    scan = preset("easy", seed=3, index=1, size=(65, 64, 63), container="tilted", cupping=0.3)
    phantom = make_phantom(scan)
    working = downsample_mean(phantom.volume.astype(np.float32))
    prepared = prepare(working, (2, 2, 2), PreprocessConfig())

    level = GreyLevel.of_finer(prepared, working, phantom.volume, (2, 2, 2))

    assert level.grey.shape == level.inside.shape == phantom.volume.shape
    inside = prepared.field_of_view.mask(prepared.shape)
    off = (downsample_mean(level.grey) - prepared.voxels)[inside]
    # Rounded to a step, but for what is clipped.
    assert np.abs(np.median(off)) < 0.5
    assert np.percentile(np.abs(off), 95) < 12
    np.testing.assert_array_equal(downsample_mean(level.inside), inside)


def test_voxels_that_are_not_finite_are_outside() -> None:
    phantom = make_phantom(preset("easy", seed=3, index=1, size=48))
    finer = phantom.volume.astype(np.float32)
    finer[:4] = np.nan
    working = downsample_mean(finer)
    prepared = prepare(working, (2, 2, 2), PreprocessConfig())

    level = GreyLevel.of_finer(prepared, working, finer, (2, 2, 2))

    assert np.isfinite(level.grey).all()
    assert not level.inside[:4].any()
    assert not GreyLevel.of_working(prepared, working).inside[:2].any()
