"""Numbers as people read them, the same on the command line and in the report."""

from __future__ import annotations

from collections.abc import Iterable

from rich.filesize import decimal

from ctray.core.geometry import AXES, Box

NONE = "–"


def size_text(num_bytes: float | None) -> str:
    """Bytes in a decimal unit, such as `24.4 GB`."""
    return NONE if num_bytes is None else decimal(int(num_bytes))


def percent_text(fraction: float | None, digits: int = 0) -> str:
    """Fraction in per cent; less than everything is never rounded to 100%."""
    if fraction is None:
        return NONE
    shown = f"{100 * fraction:.{digits}f}%"
    return ">99.9%" if fraction < 1 and shown.startswith("100") else shown


def percent_number(fraction: float | None, digits: int) -> str:
    """Fraction in per cent without the sign, for columns whose heading has it."""
    return NONE if fraction is None else f"{100 * fraction:.{digits}f}"


def number_text(value: float | None, digits: int = 2) -> str:
    """Value with fixed digits."""
    return NONE if value is None else f"{value:,.{digits}f}"


def duration_text(seconds: float) -> str:
    """Duration in the unit that suits it, such as `12.3 s`, `20 min`, `3.5 hours`, `2.1 days`."""
    for unit, length, longest, digits in (
        ("s", 1, 120, 1),
        ("min", 60, 3600, 0),
        ("hours", 3600, 48 * 3600, 1),
    ):
        if seconds < longest:
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def extent_text(values: Iterable[float], digits: int | None = None) -> str:
    """Extents along several axes, such as `504 × 504 × 504`."""
    return " × ".join(f"{v:,}" if digits is None else f"{v:,.{digits}f}" for v in values)


def length_text(voxels: Iterable[int], voxel_size_um: Iterable[float]) -> str:
    """Physical extents in the unit that suits the longest one, such as `1.20 × 0.80 × 0.80 mm`."""
    lengths = [n * um for n, um in zip(voxels, voxel_size_um, strict=True)]
    unit, factor = ("mm", 1e-3) if max(lengths) >= 1000 else ("µm", 1.0)
    digits = 2 if max(lengths) * factor < 100 else 0
    return f"{extent_text((v * factor for v in lengths), digits)} {unit}"


def box_text(box: Box | None) -> str:
    """Ranges of a box by axis, such as `z 12–52, y 8–40, x 10–44`."""
    if box is None:
        return NONE
    pairs = zip(AXES, box.ranges, strict=True)
    return ", ".join(f"{axis} {start}–{stop}" for axis, (start, stop) in pairs)
