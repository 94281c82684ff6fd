"""Checksums of slabs, and the record of a source in JSON."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from ctray.archive.source_record import SlabChecksums, SourceRecord, voxel_bytes


@pytest.mark.parametrize("parts", [[50], [1] * 50, [15, 2, 33], [16, 16, 16, 2]])
def test_checksums_do_not_depend_on_how_slices_come(parts: list[int]) -> None:
    voxels = np.random.default_rng(3).integers(0, 60_000, (50, 14, 18), np.uint16)
    checksums, start = SlabChecksums(50), 0
    for count in parts:
        checksums.update(voxels[start : start + count])
        start += count
    whole = [hashlib.sha256(voxels[z : z + 16].astype("<u2").tobytes()) for z in (0, 16, 32, 48)]
    assert checksums.finish() == [digest.hexdigest() for digest in whole]
    assert bytes(voxel_bytes(voxels[:1].astype(">u2"))) == voxels[:1].astype("<u2").tobytes()


def test_a_long_volume_has_a_bounded_number_of_checksums() -> None:
    checksums = SlabChecksums(6100)
    assert checksums.depth == 24
    assert len(range(0, 6100, checksums.depth)) == 255


@pytest.mark.parametrize("data", [None, {}, [], {"kind": "tiff"}, 3])
def test_what_is_no_record_is_none(data: Any) -> None:
    assert SourceRecord.from_json(data) is None
