"""Figures of one volume: columns of the page by axis, and all three axes in one picture."""

from __future__ import annotations

from matplotlib.figure import Figure

from ctray.core.geometry import AXES
from ctray.report.figures.lines import drawing_style
from ctray.report.figures.panels import draw_picture, draw_profile
from ctray.report.figures.parts import GAP, LEFT, RIGHT, TICKS, TITLE, WIDTH, add_panel
from ctray.report.figures.view import VolumeView

# Tallest picture and height of a profile, in points.
_MAX_HEIGHT, _PROFILE = 400.0, 96.0


def axis_figure(view: VolumeView, axis: int) -> Figure:
    """Draw projection, slice and profile along one axis, below each other.

    The rows of all three axes have the same heights, and all pictures of a volume have one scale.
    Panels without data are left out.
    """
    kinds = [k for k in ("projection", "slice") if any(n.startswith(k) for n in view.pictures)]
    scale = _scale(view)
    tallest = scale * max(view.shape[a] * view.spacing[a] for a in (0, 1))
    rows = [tallest] * len(kinds) + [_PROFILE] * bool(view.profiles)
    height = sum(r + TITLE + TICKS for r in rows) + GAP * max(0, len(rows) - 1)
    with drawing_style():
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        top = height
        for kind in kinds:
            _add_picture(figure, view, axis, kind, (LEFT, top), scale)
            top -= tallest + TITLE + TICKS + GAP
        if view.profiles:
            _add_profile(figure, view, axis, (LEFT, top))
    return figure


def overview_figure(view: VolumeView) -> Figure:
    """Draw three projections, and the three profiles below them."""
    scale = _scale(view)
    tallest = scale * max(view.shape[a] * view.spacing[a] for a in (0, 1))
    height = tallest + _PROFILE + 2 * (TITLE + TICKS) + GAP
    with drawing_style():
        size = ((3 * WIDTH + RIGHT) / 72, height / 72)
        figure = Figure(figsize=size, dpi=72, facecolor="white")
        for axis, name in enumerate(AXES):
            left = axis * WIDTH + LEFT
            if f"projection-{name}" in view.pictures:
                _add_picture(figure, view, axis, "projection", (left, height), scale)
            if name in view.profiles:
                _add_profile(figure, view, axis, (left, height - tallest - TITLE - TICKS - GAP))
    return figure


def _add_picture(
    figure: Figure,
    view: VolumeView,
    axis: int,
    kind: str,
    corner: tuple[float, float],
    scale: float,
) -> None:
    title = f"Projection along {AXES[axis]}"
    if kind == "slice":
        voxel = view.middle(axis) * view.factors[axis] + view.factors[axis] // 2
        title = f"Slice {AXES[axis]} = {voxel}"
    down, right = (view.shape[a] * view.spacing[a] * scale for a in range(3) if a != axis)
    # The side view of a thin plate stays visible.
    axes = add_panel(figure, title, corner, max(12.0, right), max(12.0, down))
    draw_picture(axes, view, axis, kind)


def _add_profile(figure: Figure, view: VolumeView, axis: int, corner: tuple[float, float]) -> None:
    title = f"{view.quantity} along {AXES[axis]}"
    axes = add_panel(figure, title, corner, WIDTH - LEFT - RIGHT, _PROFILE)
    draw_profile(axes, view, axis)


def _scale(view: VolumeView) -> float:
    """Points per unit of `spacing` at which all three views fit into their columns."""
    z, y, x = (n * s for n, s in zip(view.shape, view.spacing, strict=True))
    return float(min((WIDTH - LEFT - RIGHT) / max(y, x), _MAX_HEIGHT / max(z, y)))
