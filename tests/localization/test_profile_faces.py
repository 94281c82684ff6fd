"""FacePair of log-odds profiles, on profiles whose crossings can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.localization.profile_faces import (
    find_faces,
    fraction_of_way,
    own_threshold,
    sided_faces,
    slices_beyond,
)


def test_faces_lie_where_the_profile_crosses_the_threshold() -> None:
    # Middles of slices 1 and 2 lie at 1.5 and 2.5; from -3 to 1 the profile passes -1 half way.
    profile = np.array([-5.0, -3.0, 1.0, 3.0, 3.0, 0.0, -4.0, -5.0])

    faces = find_faces(profile, -1.0)

    assert faces is not None
    assert faces.start == pytest.approx(2.0)
    # From 0 at 5.5 to -4 at 6.5: a quarter of the way.
    assert faces.stop == pytest.approx(5.75)


def test_spread_is_the_way_from_the_looser_to_the_tighter_threshold() -> None:
    profile = np.array([-6.0, -6.0, 3.0, 3.0, 3.0, 1.0, -1.0, -3.0, -5.0, -6.0])

    faces = find_faces(profile, -1.0)

    assert faces is not None
    # Up in one slice of 9: from -3 to 0.5 it takes 3.5 / 9 of a slice.
    assert faces.widths[0] == pytest.approx(3.5 / 9)
    # Down by 2 a slice: from 0.5 to -3 it takes 1.75 slices.
    assert faces.widths[1] == pytest.approx(1.75)
    assert faces.confidence[0] > faces.confidence[1]


def test_nothing_above_the_threshold_has_no_faces() -> None:
    assert find_faces(np.full(9, -3.0), -1.0) is None


def test_sample_beyond_the_border_has_its_face_there() -> None:
    faces = find_faces(np.array([4.0, 4.0, 4.0, -6.0, -6.0]), -1.0)

    assert faces is not None
    assert (faces.start, faces.widths[0]) == (0.0, 0.0)


def test_lone_peak_far_away_is_left_out_and_a_short_dip_is_bridged() -> None:
    dip = np.array([-6.0, 3, 3, 3, -2, 3, 3, 3, -6, -6, -6, -6, -6, -6, 2, -6])

    faces = find_faces(dip, -1.0)

    assert faces is not None
    assert 0.5 < faces.start < 1.5
    assert 7.5 < faces.stop < 8.5


@pytest.mark.parametrize("order", [1, -1], ids=["before", "beyond"])
def test_specimen_apart_is_held_however_wide_the_gap(order: int) -> None:
    profile = np.array([-6.0] * 4 + [5.0] * 9 + [-6.0] * 20 + [1.0, 2.0, 3.0, 1.0] + [-6.0] * 3)

    faces = find_faces(profile[::order], -0.5)

    assert faces is not None
    start, stop = (faces.start, faces.stop) if order == 1 else (40 - faces.stop, 40 - faces.start)
    assert (start, stop) == pytest.approx((4, 37), abs=0.5)


@pytest.mark.parametrize("height", [1.8, 2.2, 2.6])
@pytest.mark.parametrize("tail", [6, 9, 12])
def test_specimen_apart_is_held_where_thresholds_do_not_settle(height: float, tail: int) -> None:
    """With it the tail beyond is what is empty, and puts the threshold above it; without, not."""
    profile = np.array([-5.0] * 8 + [9.0] * 6 + [-5.0] * 20 + [height] * 5 + [-0.7] * tail)

    faces = sided_faces({"z": profile})["z"]

    assert faces is not None
    assert faces.start == pytest.approx(8, abs=0.5)
    assert faces.stop >= 38.5


def test_faces_are_open_as_far_as_slices_are_anything_but_empty() -> None:
    profile = np.array([-5.0] * 8 + [9.0] * 6 + [-4.0, -2.5, -4.5] + [-5.0] * 9)
    profiles = {"z": profile, "y": np.full(9, 4.0), "x": profile}
    faces = sided_faces(profiles)
    z = faces["z"]
    assert z is not None
    assert (z.start, z.stop) == pytest.approx((8, 14), abs=0.5)

    # The slice at -2.5 is the 16th; at the other end, and where nothing is empty, none is beyond.
    found = slices_beyond(profiles, faces)
    assert found["z"] == (max(0.0, z.start - 8), pytest.approx(16 - z.stop))
    assert found["y"] == (0.0, 0.0)
    assert set(slices_beyond(profiles, {**faces, "x": None})) == {"z", "y"}


def test_slices_apart_that_hardly_reach_the_threshold_are_no_specimen() -> None:
    # Ten slices by half a unit each: long, and nowhere sure.
    profile = np.array([-6.0] * 4 + [5.0] * 9 + [-6.0] * 20 + [0.0] * 10 + [-6.0] * 3)

    faces = find_faces(profile, -0.5)

    assert faces is not None
    assert faces.stop == pytest.approx(13, abs=0.5)


@given(
    values=st.lists(st.floats(-8, 8), min_size=1, max_size=40),
    threshold=st.floats(-2, 2),
)
def test_faces_lie_in_the_volume_about_what_is_above(values: list[float], threshold: float) -> None:
    profile = np.array(values)

    faces = find_faces(profile, threshold)

    if faces is None:
        assert not (profile > threshold).any()
        return
    assert 0 <= faces.start <= faces.stop <= len(profile)
    assert min(faces.widths) >= 0
    above = np.flatnonzero(profile > threshold)
    assert above[0] <= faces.stop
    assert faces.start <= above[-1] + 1


@given(values=st.lists(st.floats(-8, 8), min_size=2, max_size=40))
def test_lower_thresholds_never_make_the_sample_smaller_at_a_single_hill(
    values: list[float],
) -> None:
    # A hill: up, then down.
    ordered = sorted(values)
    profile = np.array(ordered + ordered[::-1])

    tight, loose = find_faces(profile, 0.0), find_faces(profile, -1.0)

    if tight is None:
        return
    assert loose is not None
    assert loose.start <= tight.start + 1e-9
    assert loose.stop >= tight.stop - 1e-9


def test_threshold_lies_between_the_empty_and_the_surest_slices_of_the_volume() -> None:
    # Empty slices at -4, -3, -3; the axis that is least sure reaches 5.
    profiles = [np.array([-4.0, -3.0, 7.0, 6.0]), np.array([-3.0, 1.0, 5.0, 4.0])]

    assert own_threshold(profiles, 0.25) == pytest.approx(-3 + 0.25 * 8)
    assert own_threshold(profiles, 0.0) == pytest.approx(-3)


def test_faces_of_clear_scans_lie_higher_up() -> None:
    parts = [fraction_of_way(-4, peak) for peak in (-4, 0, 4, 8, 16)]
    # 5 up at most: a quarter of 20.
    assert parts == pytest.approx([0.2, 0.2, 0.2, 0.3, 0.25])
    # A plateau of streaks beside a sample that is as clear as this.
    streaks = np.array([-5.0] * 8 + [13.0] * 10 + [-0.5] * 6 + [-5.0] * 8)
    faces = sided_faces({"z": streaks})["z"]
    assert faces is not None
    assert (faces.start, faces.stop) == pytest.approx((8, 18), abs=0.6)
    # A faint end that is as high, of a sample that is fainter itself.
    faint = np.array([-3.0] * 8 + [5.0] * 10 + [-0.5] * 6 + [-3.0] * 8)
    faces = sided_faces({"z": faint})["z"]
    assert faces is not None
    assert (faces.start, faces.stop) == pytest.approx((8, 24), abs=0.8)


def test_slices_that_are_sure_enough_are_kept_however_sure_others_are() -> None:
    # What is left of drift beside the sample is half a sample to the network.
    values = np.array([-3.0] * 6 + [0.0] * 10 + [8.0] * 4 + [25.0] * 8 + [8.0] * 4 + [0.0] * 6)
    faces = sided_faces({"z": values, "y": values, "x": values})["z"]
    assert faces is not None
    assert (faces.start, faces.stop) == pytest.approx((16, 32), abs=0.6)


def test_sample_that_fills_its_volume_is_kept_whole() -> None:
    profiles = [np.array([4.0, 5.0, 6.0]), np.array([5.0, 5.0, 4.5])]

    threshold = own_threshold(profiles, 0.4)

    assert 0 < threshold < 4
    for profile in profiles:
        faces = find_faces(profile, threshold)
        assert faces is not None
        assert (faces.start, faces.stop) == (0, 3)


@given(
    profile=st.lists(st.floats(-8, 8), min_size=2, max_size=30),
    shift=st.floats(0, 3),
)
def test_a_louder_background_raises_the_threshold(profile: list[float], shift: float) -> None:
    peak = np.array([9.0])
    quiet = np.concatenate([np.minimum(profile, -3.1), peak])

    assert own_threshold([quiet + shift], 0.4) >= own_threshold([quiet], 0.4) - 1e-9


def test_each_face_is_measured_against_what_lies_beyond_it() -> None:
    # Streaks on the upper side: every slice there looks a little like sample, the nearest most.
    values = np.array([-5.0] * 8 + [9.0] * 3 + [1.0] * 3 + [-1.0] * 8)
    profiles = {"z": values, "y": np.array([-5.0] * 9 + [9.0] * 4 + [-5.0] * 9)}
    volume = own_threshold(profiles.values(), 0.3)

    faces = sided_faces(profiles, 0.3)["z"]

    assert faces is not None
    assert faces.thresholds == pytest.approx((volume, -1 + 0.3 * 10))
    assert faces.start == pytest.approx(8, abs=0.6)
    assert faces.stop == pytest.approx(11, abs=0.6)
    one = find_faces(values, volume)
    assert one is not None
    assert one.stop == pytest.approx(14, abs=0.6)  # what one threshold for the volume gives


@given(
    profile=st.lists(st.floats(-8, 8), min_size=1, max_size=30),
    threshold=st.floats(-4, 4),
    higher=st.floats(0, 4),
)
def test_higher_threshold_on_one_side_moves_that_face_inwards_alone(
    profile: list[float], threshold: float, higher: float
) -> None:
    values = np.array(profile)
    sided = find_faces(values, threshold, threshold + higher)
    if sided is None:
        return

    both = find_faces(values, threshold + higher)

    assert both is not None
    assert sided.stop == pytest.approx(both.stop)
    assert sided.start <= both.start + 1e-9


def test_volume_without_sample_has_no_faces() -> None:
    assert sided_faces({"z": np.full(9, -3.0)}, 0.3) == {"z": None}
