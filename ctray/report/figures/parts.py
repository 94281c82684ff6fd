"""Parts that all figures share: sizes, panels with a title, axes with names.

One point is one CSS pixel.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ctray.report.figures.lines import INK

# Column of the page: its width, margins beside a panel, heights above and below one; in points.
WIDTH, LEFT, RIGHT = 370.0, 40.0, 8.0
TITLE, TICKS, GAP = 20.0, 20.0, 8.0


def add_panel(
    figure: Figure, title: str, corner: tuple[float, float], width: float, height: float
) -> Axes:
    """Add axes below a title.

    Parameters
    ----------
    corner
        Left and top edge of the title, in points from the figure's lower left corner.
    width, height
        Of the axes, in points.
    """
    (left, top), (full_width, full_height) = corner, (72 * s for s in figure.get_size_inches())
    figure.text(left / full_width, (top - 13) / full_height, title, color=INK, fontsize=11)
    bottom = top - TITLE - height
    return figure.add_axes(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )


def open_frame(axes: Axes) -> None:
    """Remove the upper and the right edge, and the background."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.patch.set_visible(False)


def name_axis(side: Axis, name: str, extent: int) -> None:
    """Set ticks at round numbers, and the name of the axis at its end."""
    box = side.axes.get_window_extent()
    length = box.width if side is side.axes.xaxis else box.height
    locator = MaxNLocator(int(np.clip(length // 55, 1, 5)), integer=True, steps=[1, 2, 5, 10])
    # A number must not overlap the name.
    room = extent * (1 - 24 / max(length, 25))
    ticks = [int(t) for t in locator.tick_values(0, extent) if 0 <= t <= room]
    side.set_ticks([*ticks, extent], labels=[*(str(t) for t in ticks), name])
