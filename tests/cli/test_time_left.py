"""Time left: from the recent rate, by bytes, and not at all while it cannot be known."""

from __future__ import annotations

import pytest

from ctray.cli.time_left import TimeLeft, in_words


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def after(*steps: tuple[int, float, float]) -> tuple[TimeLeft, Clock]:
    """`steps`: how many reports, seconds between them, work between them."""
    clock, done = Clock(), 0.0
    left = TimeLeft(clock)
    for count, seconds, work in steps:
        for _ in range(count):
            clock.now += seconds
            done += work
            left.report(done)
    return left, clock


def test_steady_work() -> None:
    left, clock = after((20, 2.0, 5.0))
    assert left.seconds(200.0) == pytest.approx(40.0)
    clock.now += 7
    assert left.seconds(200.0) == pytest.approx(33.0)


def test_a_slow_start_is_forgotten() -> None:
    left, _ = after((5, 600.0, 1.0), (100, 1.0, 1.0))
    assert left.seconds(205.0) == pytest.approx(100.0)


@pytest.mark.parametrize(
    "steps",
    [
        [(7, 10.0, 1.0)],  # too few
        [(50, 0.1, 1.0)],  # too short
        [(10, 1.0, 1.0), (10, 1.0, 4.0)],  # not steady
        [(20, 2.0, 0.0)],  # nothing gets done
    ],
)
def test_what_cannot_be_known_is_not_said(steps: list[tuple[int, float, float]]) -> None:
    left, _ = after(*steps)
    assert left.seconds(1000.0) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (45, "45 s"), (600, "10 min"), (3 * 3600, "3 h"), (86400 * 4, "4 days")],
)
def test_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == f"about {words} left"
