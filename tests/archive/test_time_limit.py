"""A call that hangs or fails does not stop the others."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ctray.archive.time_limit import OverdueError, guarded_map
from ctray.core.errors import ConfigError

VOLUME = np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8)


def test_results_come_in_order() -> None:
    assert list(guarded_map(lambda n: n * n, range(50), max_workers=4)) == [
        n * n for n in range(50)
    ]
    assert list(guarded_map(str, [], max_workers=4)) == []


def test_what_one_raises_stands_in_its_place() -> None:
    class Panic(BaseException):
        pass

    def call(n: int) -> int:
        if n == 2:
            raise RecursionError("deep")
        if n == 3:
            raise Panic("a library's own")
        return n

    found = list(guarded_map(call, range(5), max_workers=2))
    assert [type(f) for f in found] == [int, int, RecursionError, Panic, int]


def test_calls_that_hang_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there are workers; those behind them are done all the same."""
    monkeypatch.setenv("CTRAY_ENTRY_TIMEOUT_S", "0.3")
    never = threading.Event()
    try:
        found = list(guarded_map(lambda n: n if n > 4 else never.wait(), range(9), max_workers=2))
    finally:
        never.set()
    assert all(isinstance(f, OverdueError) for f in found[:5])
    assert found[5:] == [5, 6, 7, 8]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRAY_ENTRY_TIMEOUT_S", text)
    with pytest.raises(ConfigError, match="CTRAY_ENTRY_TIMEOUT_S"):
        list(guarded_map(str, [1], max_workers=1))
