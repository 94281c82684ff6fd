"""From a certainty profile to a stretch of slices, on invented profiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.config import LocalizeConfig
from ctray.localization.stretches import background_level, choose_threshold, find_stretch

CHANCE = 1 / 7
DEFAULT = LocalizeConfig()


def profile(length: int, start: int, stop: int, *, inside: float = 0.9) -> np.ndarray:
    values = np.full(length, CHANCE)
    values[start:stop] = inside
    return values


def noisy(values: np.ndarray, spread: float, seed: int = 0) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0, spread, len(values))


@given(length=st.integers(40, 200), data=st.data(), seed=st.integers(0, 99))
def test_stretch_of_a_clear_profile(length: int, data: st.DataObject, seed: int) -> None:
    """Exact, whatever the noise of the empty slices, while a fifth of them is empty."""
    extent = data.draw(st.integers(length // 8, int(length * 0.75)))
    start = data.draw(st.integers(0, length - extent))
    values = noisy(profile(length, start, start + extent), 0.004, seed)
    found = find_stretch(values, DEFAULT, CHANCE)
    assert found is not None
    assert (found.start, found.stop) == (start, start + extent)
    assert found.background == pytest.approx(CHANCE, abs=0.02)
    assert found.background < found.threshold < 0.9
    assert all(0.9 < c <= 1 for c in found.confidence)


def test_no_slice_is_certain() -> None:
    assert find_stretch(np.full(64, CHANCE), DEFAULT, CHANCE) is None
    assert find_stretch(noisy(np.full(64, CHANCE), 0.02), DEFAULT, CHANCE) is None


def test_peak_below_the_least_is_none() -> None:
    config = LocalizeConfig(min_peak=0.3)
    low, high = profile(64, 20, 40, inside=CHANCE + 0.25), profile(64, 20, 40, inside=CHANCE + 0.35)
    assert find_stretch(low, config, CHANCE) is None
    assert find_stretch(high, config, CHANCE) is not None


def test_dip_inside_is_bridged() -> None:
    values = profile(80, 20, 60)
    values[38:41] = CHANCE
    found = find_stretch(values, DEFAULT, CHANCE)
    assert found is not None
    assert (found.start, found.stop) == (20, 60)


def test_lone_peak_far_away_is_left_out() -> None:
    values = noisy(profile(100, 40, 80), 0.004)
    values[5] = 0.9
    config = LocalizeConfig(threshold=0.3)
    found = find_stretch(values, config, CHANCE)
    assert found is not None
    assert (found.start, found.stop) == (40, 80)


def test_of_two_samples_with_a_wide_gap_the_larger_one_counts() -> None:
    values = profile(200, 10, 30) + profile(200, 120, 180) - CHANCE
    found = find_stretch(values, LocalizeConfig(threshold=0.5), CHANCE)
    assert found is not None
    assert (found.start, found.stop) == (120, 180)


def test_thin_tail_belongs_to_the_sample() -> None:
    """Tails are a little above chance; Otsu between chance and 0.9 would cut them."""
    values = noisy(profile(120, 40, 90), 0.002)
    values[90:105] = 0.3
    ours = find_stretch(values, DEFAULT, CHANCE)
    otsu = find_stretch(values, LocalizeConfig(threshold="otsu"), CHANCE)
    assert ours is not None
    assert otsu is not None
    assert (ours.start, ours.stop) == (40, 105)
    assert otsu.stop == 90


def test_sample_that_spans_the_axis_keeps_it() -> None:
    """No slice is empty, so the lowest fifth is no background."""
    values = noisy(np.full(64, 0.95), 0.01)
    values[0] = values[-1] = 0.6
    found = find_stretch(values, LocalizeConfig(min_peak=0.0), CHANCE)
    assert found is not None
    assert (found.start, found.stop) == (0, 64)


def test_profile_that_touches_both_ends() -> None:
    for start, stop in ((0, 30), (34, 64)):
        found = find_stretch(profile(64, start, stop), DEFAULT, CHANCE)
        assert found is not None
        assert (found.start, found.stop) == (start, stop)


# --- thresholds -----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_fixed_threshold_is_taken_as_it_is(level: float) -> None:
    assert choose_threshold(profile(64, 20, 40), LocalizeConfig(threshold=level), CHANCE) == level


def test_otsu_separates_two_levels() -> None:
    config = LocalizeConfig(threshold="otsu")
    values = noisy(profile(64, 20, 40), 0.02)
    above = values > choose_threshold(values, config, CHANCE)
    assert above.tolist() == [20 <= i < 40 for i in range(64)]


def test_background_is_the_level_of_the_empty_slices() -> None:
    level, spread = background_level(noisy(profile(400, 100, 300), 0.01))
    assert level == pytest.approx(CHANCE, abs=0.03)
    assert 0 < spread < 0.02


def test_threshold_lies_its_spreads_above_the_background() -> None:
    config = LocalizeConfig(spreads=4.0, min_rise=0.0, rise_fraction=0.0)
    values = noisy(profile(400, 100, 300), 0.01)
    level, spread = background_level(values)
    found = choose_threshold(values, config, CHANCE)
    assert found == pytest.approx(level + 4 * spread)


def test_threshold_rises_at_least_a_little() -> None:
    config = LocalizeConfig(spreads=1.0, min_rise=0.05, rise_fraction=0.0)
    assert choose_threshold(profile(64, 20, 40), config, CHANCE) == pytest.approx(CHANCE + 0.05)


def test_threshold_rises_at_least_its_part() -> None:
    config = LocalizeConfig(spreads=1.0, min_rise=0.0, rise_fraction=0.25)
    expected = CHANCE + 0.25 * (0.5 - CHANCE)
    found = choose_threshold(profile(64, 20, 40, inside=0.5), config, CHANCE)
    assert found == pytest.approx(expected)


@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=60))
def test_whatever_the_profile_a_stretch_lies_in_it(values: list[float]) -> None:
    found = find_stretch(np.array(values), DEFAULT, CHANCE)
    if found is None:
        return
    assert 0 <= found.start < found.stop <= len(values)
    assert all(0 <= c <= 1 for c in found.confidence)
    assert np.isfinite([found.threshold, found.background]).all()
    # The first and the last slice are above the threshold themselves.
    assert min(values[found.start], values[found.stop - 1]) > found.threshold


# --- certainty of the faces -----------------------------------------------------------------


def test_sharp_face_is_more_certain_than_a_gradual_one() -> None:
    values = profile(100, 30, 70)
    values[70:90] = np.linspace(0.9, CHANCE, 20)
    found = find_stretch(values, DEFAULT, CHANCE)
    assert found is not None
    low, high = found.confidence
    assert low == pytest.approx(1.0)
    assert high < 0.5


def test_reversed_profile_gives_the_reversed_stretch() -> None:
    values = profile(100, 30, 70)
    values[70:80] = np.linspace(0.9, CHANCE, 10)
    one, other = (find_stretch(v, DEFAULT, CHANCE) for v in (values, values[::-1]))
    assert one is not None
    assert other is not None
    assert (100 - other.stop, 100 - other.start) == (one.start, one.stop)
    assert other.confidence[::-1] == pytest.approx(one.confidence)


def test_stretch_as_json() -> None:
    found = find_stretch(profile(64, 20, 40), DEFAULT, CHANCE)
    assert found is not None
    told = found.to_json()
    assert told["range"] == [20, 40]
    assert set(told) == {"range", "threshold", "background", "confidence"}
