"""A stamp changes when any file of a source changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ctray.archive.source_stamp import stamp_of, what_changed
from ctray.core.errors import NotFoundError
from ctray.storage import store


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_stamp_on_every_store(base_url: str, kind: str) -> None:
    url = store.join(base_url, "scan.zarr" if kind == "zarr" else "scan.tif")
    first = store.join(url, "zarr.json") if kind == "zarr" else url
    with pytest.raises(NotFoundError):
        stamp_of(url, kind)
    store.write_bytes(first, b"one")
    if kind == "zarr":
        store.write_bytes(store.join(url, "c", "0"), b"chunk")
    before = stamp_of(url, kind)
    assert stamp_of(url, kind) == before
    store.write_bytes(first, b"two")
    if store.is_local(first):
        # Two writes may come within one tick of the disk's clock.
        os.utime(first, ns=(1, 1))
    assert stamp_of(url, kind) != before
    assert what_changed(before, stamp_of(url, kind)) == "a file was rewritten"
    store.write_bytes(first, b"three")
    assert "bytes instead of" in what_changed(before, stamp_of(url, kind))


def test_stamp_of_a_folder_of_slices_ignores_other_files(tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    scan.mkdir()
    source = str(scan)
    for z in range(5):
        tifffile.imwrite(scan / f"s_{z:04d}.tif", np.full((6, 7), z, np.uint16))
    before = stamp_of(source, "tiff-folder")
    (scan / "notes.txt").write_text("hello")
    assert stamp_of(source, "tiff-folder") == before
    (scan / "s_0000.tif").unlink()
    assert what_changed(before, stamp_of(source, "tiff-folder")) == "4 files instead of 5"
