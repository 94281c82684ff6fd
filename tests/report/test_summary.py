"""Numbers of a run."""

from __future__ import annotations

import pytest
from report_makers import (
    fill,
    located,
    without_box,
)

from ctray.core.errors import NotFoundError
from ctray.records.run_folder import RunFolder
from ctray.report import write_report
from ctray.report.summary import summarize_run


def test_no_run(run: RunFolder) -> None:
    with pytest.raises(NotFoundError, match="holds no run"):
        write_report(run)


def test_sizes_of_crops_and_of_what_stays(run: RunFolder) -> None:
    fill(run, located("a"), without_box("b", "uncertain", "why"), with_pictures=False)
    summary = summarize_run(run)
    volume, crop = 2 * 96 * 80 * 64, 2 * 48 * 40 * 36
    cropped, whole = summary.sizes(cropped=True), summary.sizes()
    assert (cropped.before, cropped.after, cropped.stored) == (volume, crop, 123_456)
    assert (whole.before, whole.after) == (2 * volume, volume + crop)
    assert summary.counts == {"uncertain": 1, "located": 1}
