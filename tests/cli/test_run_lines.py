"""The summary of a run: what is promised of its crops, and why nothing is."""

from __future__ import annotations

from typing import Any

from ctray.cli.tables import run_lines


def facts(**changes: Any) -> dict[str, Any]:
    values = {
        "counts": {"located": 3},
        "bytes_before": 100,
        "bytes_after": 30,
        "saved": 0.7,
        "promises": {"calibrated": 3},
        "not_calibrated": None,
    }
    return {**values, **changes}


def test_calibrated_crops_are_counted() -> None:
    lines = run_lines(facts())
    assert "promise 3 calibrated" in lines
    assert not [line for line in lines if "not calibrated" in line]


def test_crops_without_a_rate_are_told_with_the_reason() -> None:
    promises = {"not calibrated": 2, "calibrated": 1}
    lines = run_lines(facts(promises=promises, not_calibrated="other settings: train.steps"))
    assert "promise 2 not calibrated, 1 calibrated" in lines
    (why,) = [line for line in lines if line.startswith("not calibrated: ")]
    assert "other settings: train.steps" in why
    assert "ctray calibrate" in why


def test_nothing_is_said_where_nothing_is_located() -> None:
    lines = run_lines(facts(counts={"empty": 3}, promises={}, bytes_after=None))
    assert not [line for line in lines if line.startswith("promise")]
