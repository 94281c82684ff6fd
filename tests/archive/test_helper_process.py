"""Calls in helper processes: what crashes or hangs there is an error here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from ctray.archive.catalog import build_catalog
from ctray.archive.helper_process import Helpers
from ctray.archive.time_limit import OverdueError, guarded_map
from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.storage.store import file_bytes


def test_results_and_errors_come_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    with Helpers() as helpers:
        assert helpers.call(file_bytes, str(tmp_path / "a")) == 3
        with pytest.raises(NotFoundError, match="none"):
            helpers.call(file_bytes, str(tmp_path / "none"))
        with pytest.raises(InvalidVolumeError, match="ZeroDivisionError"):
            helpers.call(divmod, 1, 0)
        # One helper a thread, and the same for its next call.
        assert helpers.call(os.getpid) == helpers.call(os.getpid) != os.getpid()


def test_a_helper_that_crashes_is_an_error_and_is_replaced() -> None:
    with Helpers() as helpers:
        first = helpers.call(os.getpid)
        with pytest.raises(InvalidVolumeError, match=r"crashed \(signal 11\)"):
            helpers.call(signal.raise_signal, signal.SIGSEGV)
        assert helpers.call(os.getpid) != first


def test_a_helper_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRAY_ENTRY_TIMEOUT_S", "0.3")
    with Helpers() as helpers:
        with pytest.raises(OverdueError, match=r"not opened within 0\.3 s"):
            helpers.call(time.sleep, 1000)
        assert helpers.call(abs, -4) == 4


def test_no_helper_is_left() -> None:
    with Helpers() as helpers:
        pids = set(guarded_map(lambda _: helpers.call(os.getpid), range(6), max_workers=2))
    assert 1 <= len(pids) <= 2
    for pid in pids:
        assert isinstance(pid, int)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_hdf5_file_that_never_opens_is_one_failed_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library waits while it holds Python's lock: no thread could end that."""
    monkeypatch.setenv("CTRAY_ENTRY_TIMEOUT_S", "6")
    archive = tmp_path / "archive"
    archive.mkdir()
    os.mkfifo(archive / "pipe")
    with h5py.File(archive / "hangs.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(archive / "pipe"), "/data")
        file.attrs["default"] = "link"
    with h5py.File(archive / "good.h5", "w") as file:
        file["data"] = np.zeros((6, 7, 8), np.uint16)
    statuses = {e.volume_id: e.status for e in build_catalog(str(archive))}
    assert statuses == {"good": "ok", "hangs": "failed"}
