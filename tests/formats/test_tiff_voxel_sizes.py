"""Voxel sizes of TIFFs: what is stated is right, and what is only a default is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiff_inputs import described, noise, write_pages

from ctray.formats.opening import open_source

VOLUME = noise(8)
IMAGEJ = "ImageJ=1.54f\nimages=8\nslices=8\n"


def size_of(path: Path) -> tuple[float, float, float] | None:
    with open_source(str(path)) as source:
        return source.voxel_size and source.voxel_size.um


@pytest.mark.parametrize(
    ("lines", "per_unit", "um"),
    [
        ("unit=microns\nspacing=2.0\n", 4, (2, 0.25, 0.25)),
        ("unit=micrometers\nspacing=2.0\n", 4, (2, 0.25, 0.25)),
        ("unit=\\u00B5m\nspacing=2.0\n", 4, (2, 0.25, 0.25)),
        ("unit=um\nspacing=-2.0\n", 4, (2, 0.25, 0.25)),
        ("unit=mm\nzunit=um\nspacing=2.0\n", 4000, (2, 0.25, 0.25)),
        ("unit=um\nyunit=nm\nzunit=mm\nspacing=0.002\n", 4, (2, 0.00025, 0.25)),
        ("unit=um\nzunit=pixel\nspacing=2.0\n", 4, None),
        ("unit=um\nzunit=ms\nspacing=2.0\n", 4, None),
        ("unit=um\nzunit=sec\nspacing=2.0\n", 4, None),
        ("unit=pixel\nspacing=2.0\n", 4, None),
        ("spacing=2.0\n", 4, None),
        # A depth that nobody stated is one unit in ImageJ; other programs leave it out, too.
        ("unit=um\n", 4, None),
        ("unit=um\n", 1, (1, 1, 1)),
    ],
)
def test_imagej(
    tmp_path: Path, lines: str, per_unit: float, um: tuple[float, float, float] | None
) -> None:
    first: dict[str, Any] = {"resolution": (per_unit, per_unit), "resolutionunit": 1}
    path = write_pages(tmp_path / "a.tif", described(VOLUME, IMAGEJ + lines, **first))
    assert size_of(path) == (None if um is None else pytest.approx(um))


@pytest.mark.parametrize(
    ("unit", "per_unit", "um"),
    [
        *[("INCH", dpi, None) for dpi in (72, 96, 150, 300, 600, 1200)],
        *[("CENTIMETER", dpi / 2.54, None) for dpi in (72, 96, 300)],
        # 72, 300 and 600 dpi, rounded to whole numbers per centimetre.
        *[("CENTIMETER", rounded, None) for rounded in (28, 118, 236)],
        ("CENTIMETER", 2000, 5.0),
        ("CENTIMETER", 945, 1e4 / 945),
        ("CENTIMETER", 100, 100.0),
        ("CENTIMETER", 1e4 / 0.65, 0.65),
        ("INCH", 25400 / 0.65, 0.65),
        ("NONE", 2000, None),
    ],
)
def test_resolution_tags(tmp_path: Path, unit: str, per_unit: float, um: float | None) -> None:
    path = write_pages(
        tmp_path / "a.tif", VOLUME, resolution=(per_unit, per_unit), resolutionunit=unit
    )
    assert size_of(path) == (None if um is None else pytest.approx((um, um, um), rel=1e-4))


def test_resolution_without_a_unit_is_unknown(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", VOLUME, resolution=(39000, 39000), resolutionunit="INCH")
    data = path.read_bytes()
    # Tag 296 becomes one that nobody knows.
    path.write_bytes(data.replace(b"\x28\x01\x03\x00", b"\xfd\xff\x03\x00", 1))
    assert size_of(path) is None
