"""Colours and line styles of all figures. The key of the page is made from them, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

INK, GREY, RULE = "#1f2933", "#5f6b7a", "#cbd2d9"
ORANGE, GREEN, BLUE, PINK = "#ff8a00", "#12b886", "#22b8e6", "#e64980"

_STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": GREY,
    "axes.linewidth": 0.8,
    "axes.labelsize": 10,
    "axes.labelpad": 2,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "svg.fonttype": "none",
    "svg.hashsalt": "ctray",
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Set the fonts, colours and line widths of all figures while one is drawn or written."""
    with mpl.rc_context(_STYLE):
        yield


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of line.

    Parameters
    ----------
    color
        Hexadecimal RGB.
    width
        Points.
    dash
        Lengths of strokes and gaps, in line widths; empty for a solid line.
    """

    color: str
    width: float
    dash: tuple[float, ...] = ()

    def style(self, width: float | None = None) -> dict[str, Any]:
        """Arguments of matplotlib for lines and for outlines, with another width if given."""
        return {
            "color": self.color,
            "linewidth": width or self.width,
            "linestyle": (0, self.dash) if self.dash else "-",
        }

    @property
    def svg_dash(self) -> str:
        """Value of the attribute `stroke-dasharray`."""
        return " ".join(f"{length * self.width:g}" for length in self.dash)


BOX = Line(ORANGE, 1.8)
CROP = Line(ORANGE, 0.9, (2, 2))
SAMPLE = Line(ORANGE, 1.1)
TRUTH = Line(GREEN, 1.4, (5, 3))
BOUND = Line(BLUE, 1.2, (1, 1.5))
MEDIUM = Line(BLUE, 0.9, (4, 2, 1, 2))
PROFILE = Line(INK, 1.3)
THRESHOLD = Line(INK, 0.9, (4, 3))
BACKGROUND = Line(GREY, 0.9, (1, 2))
REGION = Line(PINK, 1.3)
