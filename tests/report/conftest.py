"""A run folder for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctray.records.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(url=str(tmp_path / "run"))
