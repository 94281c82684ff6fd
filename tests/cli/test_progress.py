"""Lines of progress: count, rate, and time left once it is known."""

from __future__ import annotations

import io

import pytest

from ctray.cli.progress import Reporter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(stage: str, *reports: tuple[float, int], total: int, in_bytes: int = 0) -> list[str]:
    """Lines after reports of (seconds since the start, done)."""
    clock, stream = Clock(), io.StringIO()
    shown = Reporter(stream, clock=clock)
    for seconds, done in reports:
        clock.now = 100.0 + seconds
        shown.update(stage, done, total, bytes_done=done * in_bytes, bytes_total=total * in_bytes)
    return stream.getvalue().splitlines()


def test_rate_and_time_left_come_once_they_are_known() -> None:
    found = lines_of("localize", (0, 0), (20, 10), (40, 30), (60, 50), total=80)
    assert found == [
        "localize: 0/80 volumes",
        "localize: 10/80 volumes",
        # 20 in 20 s, and 50 are left.
        "localize: 30/80 volumes, 1.0/s, 0:00:50 left",
        "localize: 50/80 volumes, 1.0/s, 0:00:30 left",
    ]


def test_what_an_earlier_command_did_is_no_rate() -> None:
    found = lines_of("pretrain", (0, 900), (20, 902), (40, 904), total=1000)
    assert found[-1] == "pretrain: 904/1,000 steps, 0.1/s, 0:16:00 left"


def test_slow_work_is_counted_by_the_minute() -> None:
    found = lines_of("localize", (0, 0), (60, 1), (120, 2), total=62)
    assert found[-1] == "localize: 2/62 volumes, 1.0/min, 1:00:00 left"


def test_volumes_of_different_sizes_are_timed_by_their_bytes() -> None:
    found = lines_of("localize", (0, 0), (20, 1), (40, 3), total=7, in_bytes=10**9)
    assert found[-1] == "localize: 3/7 volumes, 100.0 MB/s, 0:00:40 left"


def test_bytes_are_readable() -> None:
    found = lines_of("import", (0, 0), (20, 10**6), (40, 3 * 10**6), total=4 * 10**6)
    assert found[-1] == "import: 3.0 MB of 4.0 MB, 100.0 kB/s, 0:00:10 left"


def test_the_last_line_tells_no_time_left() -> None:
    found = lines_of("localize", (0, 0), (20, 2), (40, 4), total=4)
    assert found[-1] == "localize: 4/4 volumes, 0.1/s"


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_the_first_seconds_tell_no_rate(seconds: float) -> None:
    found = lines_of("localize", (0, 0), (seconds, 1), (seconds * 2, 2), total=2)
    assert found[-1] == "localize: 2/2 volumes"
