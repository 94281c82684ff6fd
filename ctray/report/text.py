"""Numbers as people read them, and text that is safe in HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable
from urllib.parse import quote

from ctray.core.errors import printable
from ctray.core.geometry import AXES, Box

NONE = "–"


def escape(text: object) -> str:
    """Text that is safe between tags and in quoted attributes, control characters made visible."""
    return html.escape(printable(text, keep="\n\t"), quote=True)


def anchor(volume_id: str) -> str:
    """Id of a volume's section; one line without spaces, whatever the volume is called."""
    return f"volume-{quote(volume_id, safe='')}"


def human_bytes(count: int | None) -> str:
    """Bytes with three digits and a decimal unit, such as `24.4 GB`."""
    if count is None:
        return NONE
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        # 999.5 would be shown as 1,000.
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def percent(part: float | None, digits: int = 0) -> str:
    """Part of 1 as per cent; never rounded up to a full 100%."""
    if part is None:
        return NONE
    shown = f"{100 * part:.{digits}f}%"
    return f">{99.9:.1f}%" if part < 1 and shown.startswith("100") else shown


def number(value: float | None, digits: int = 2) -> str:
    """Value with fixed digits, a dash where there is none."""
    return NONE if value is None else f"{value:,.{digits}f}"


def times(values: Iterable[float], digits: int | None = None) -> str:
    """Extents, such as `504 × 504 × 504`."""
    return " × ".join(f"{v:,}" if digits is None else f"{v:,.{digits}f}" for v in values)


def box_ranges(box: Box) -> str:
    """Ranges of a box by axis, such as `z 12–52, y 8–40, x 10–44`."""
    pairs = zip(AXES, box.ranges, strict=True)
    return ", ".join(f"{axis} {a}–{b}" for axis, (a, b) in pairs)


def physical(voxels: Iterable[int], voxel_size_um: Iterable[float]) -> str:
    """Extents in the unit that suits the longest one."""
    lengths = [n * um for n, um in zip(voxels, voxel_size_um, strict=True)]
    unit, factor = ("mm", 1e-3) if max(lengths) >= 1000 else ("µm", 1.0)
    digits = 2 if max(lengths) * factor < 100 else 0
    return f"{times((v * factor for v in lengths), digits)} {unit}"
