"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.core.geometry import Box
from ctray.core.readable import (
    box_text,
    duration_text,
    length_text,
    number_text,
    percent_text,
    size_text,
)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (24_400_000_000, "24.4 GB"),
     (None, "–")],
)  # fmt: skip
def test_size(count: int | None, shown: str) -> None:
    assert size_text(count) == shown


@given(st.floats(0, 1, exclude_max=True))
def test_only_everything_is_a_hundred_percent(fraction: float) -> None:
    assert percent_text(fraction) != "100%"
    assert percent_text(1.0) == "100%"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.84, "0.8 s"), (119, "119.0 s"), (120, "2 min"), (3599, "60 min"), (3600, "1.0 hours"),
     (47 * 3600, "47.0 hours"), (48 * 3600, "2.0 days")],
)  # fmt: skip
def test_duration(seconds: float, shown: str) -> None:
    assert duration_text(seconds) == shown


def test_lengths_are_in_the_unit_of_the_longest() -> None:
    assert length_text((48, 40, 36), (2.0, 2.0, 2.0)) == "96.00 × 80.00 × 72.00 µm"
    assert length_text((500, 100, 50), (2.5, 2.0, 2.0)) == "1.25 × 0.20 × 0.10 mm"


def test_missing_values_are_a_dash() -> None:
    assert [number_text(None), percent_text(None), box_text(None)] == ["–"] * 3
    assert number_text(1234.567) == "1,234.57"
    assert box_text(Box.from_ranges([[1, 2], [3, 4], [5, 6]])) == "z 1–2, y 3–4, x 5–6"
