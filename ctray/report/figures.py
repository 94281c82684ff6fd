"""Pictures of a run: boxes on projections and slices, profiles and maps, training curves.

All pictures have axes in level-0 voxels, where voxel i covers [i, i + 1): a box [a, b) is drawn
from a to b exactly, whatever level the picture comes from. One point is one CSS pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from skimage.morphology import convex_hull_image

from ctray.core.geometry import AXES, Box
from ctray.preprocess.field_of_view import FieldOfView
from ctray.report.encoding import GREY, INK, drawing_style
from ctray.report.round_bounds import COLOR, draw_bounds, pixels_inside

UintArray = npt.NDArray[np.uint8]

BOX, TRUTH, VIEW, HEAT = "#ff8a00", "#12b886", COLOR, "#e64980"

# Width of a column, its left and right margins, longest height of a picture, height of a profile.
_WIDTH, _LEFT, _RIGHT, _MAX_HEIGHT, _PROFILE = 370.0, 40.0, 8.0, 400.0, 96.0
_TITLE, _TICKS, _GAP = 20.0, 20.0, 8.0
_MAX_PIXELS = 320
# Grey value below which a picture's middle counts as dark, and what lifts it.
_DARK, _GAMMA = 64, 0.6


@dataclass(frozen=True, kw_only=True)
class VolumeView:
    """What can be drawn of one volume; boxes at level 0, everything else at the working level.

    Parameters
    ----------
    shape
        Voxels at level 0, (z, y, x).
    factors
        Level-0 voxels per voxel of the working level, (z, y, x).
    spacing
        Edges of a level-0 voxel, (z, y, x), in any unit: the pictures' proportions.
    pictures
        2D uint8 arrays named `projection-z`, `slice-z` and so on; of the sorting method also
        `variance-z` (in the slice) and `region-z` (seen along the axis).
    box, truth
        Box of the sample, and the true one.
    specimens, crop_boxes
        Boxes of several specimens, and of the crops.
    field_of_view
        Circle, container and column of medium.
    profiles, stretches, refined, certainty
        As receipts have them; certainty of the six faces.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    pictures: dict[str, UintArray] = field(default_factory=dict)
    box: Box | None = None
    truth: Box | None = None
    specimens: Sequence[Box] = ()
    crop_boxes: Sequence[Box] = ()
    field_of_view: FieldOfView = field(default_factory=FieldOfView)
    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Any] = field(default_factory=dict)
    refined: dict[str, Any] = field(default_factory=dict)
    certainty: Sequence[float] = ()

    @property
    def quantity(self) -> str:
        """What the profiles show."""
        by_variance = any(name.startswith("variance") for name in self.pictures)
        return "Variance" if by_variance else "Certainty"

    @property
    def num_slices(self) -> int:
        """Slices of the working level along z."""
        return -(-self.shape[0] // self.factors[0])

    def middle(self, axis: int) -> int:
        """Slice of the working level that `slice-z` (or y, x) shows."""
        extent = -(-self.shape[axis] // self.factors[axis])
        if self.box is None:
            return extent // 2
        return min(extent - 1, sum(self.box.ranges[axis]) // (2 * self.factors[axis]))


def axis_figure(view: VolumeView, axis: int) -> Figure:
    """One column of a volume's section: projection, slice and profile along an axis.

    Rows have the same place in all three columns, and all pictures of a volume one scale. Panels
    that the view has nothing for are left out.
    """
    name = AXES[axis]
    panels = [p for p in ("projection", "slice") if any(n.startswith(p) for n in view.pictures)]
    scale = _scale(view)
    tallest = scale * max(view.shape[a] * view.spacing[a] for a in (0, 1))
    profile = [_PROFILE] if view.profiles else []
    rows = [tallest] * len(panels) + profile
    height = sum(r + _TITLE + _TICKS for r in rows) + _GAP * max(0, len(rows) - 1)
    with drawing_style():
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        top = height
        for panel in panels:
            title = f"Projection along {name}"
            if panel == "slice":
                voxel = view.middle(axis) * view.factors[axis] + view.factors[axis] // 2
                title = f"Slice {name} = {voxel}"
            _title(figure, title, _LEFT, top)
            size = _extent(view, axis, scale)
            rect = (_LEFT, top - _TITLE - size[1], *size)
            axes = figure.add_axes(_relative(rect, (_WIDTH, height)))
            draw_picture(axes, view, axis, panel)
            top -= tallest + _TITLE + _TICKS + _GAP
        if profile:
            _title(figure, f"{view.quantity} along {name}", _LEFT, top)
            rect = (_LEFT, top - _TITLE - _PROFILE, _WIDTH - _LEFT - _RIGHT, _PROFILE)
            draw_profile(figure.add_axes(_relative(rect, (_WIDTH, height))), view, axis)
    return figure


def overview_figure(view: VolumeView) -> Figure:
    """Three projections and the three profiles below them, in one picture."""
    scale = _scale(view)
    tallest = scale * max(view.shape[a] * view.spacing[a] for a in (0, 1))
    size = (3 * _WIDTH + _RIGHT, tallest + _PROFILE + 2 * (_TITLE + _TICKS) + _GAP)
    with drawing_style():
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, facecolor="white")
        for axis, name in enumerate(AXES):
            left, top = axis * _WIDTH + _LEFT, size[1]
            if f"projection-{name}" in view.pictures:
                _title(figure, f"Projection along {name}", left, top)
                extent = _extent(view, axis, scale)
                rect = (left, top - _TITLE - extent[1], *extent)
                draw_picture(figure.add_axes(_relative(rect, size)), view, axis, "projection")
            top -= tallest + _TITLE + _TICKS + _GAP
            if name in view.profiles:
                _title(figure, f"{view.quantity} along {name}", left, top)
                rect = (left, top - _TITLE - _PROFILE, _WIDTH - _LEFT - _RIGHT, _PROFILE)
                draw_profile(figure.add_axes(_relative(rect, size)), view, axis)
    return figure


# Lines of a training curve: prefix of the metric's name, style, label.
_CURVES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("", {"color": INK, "linewidth": 1.4}, "as trained"),
    ("training_", {"color": VIEW, "linewidth": 1.4}, "trained on"),
    ("validation_", {"color": BOX, "linewidth": 1.8}, "held out"),
)


def training_figure(metrics: Sequence[dict[str, float]], name: str, guessing: float) -> Figure:
    """One metric over the steps, as trained and on held-out volumes, and what guessing gives."""
    last = max(row["step"] for row in metrics)
    height = 180.0
    with drawing_style():
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        _title(figure, metric_title(name), _LEFT, height)
        rect = (_LEFT, _TICKS, _WIDTH - _LEFT - 2 * _RIGHT, height - _TITLE - _TICKS)
        axes = figure.add_axes(_relative(rect, (_WIDTH, height)))
        for prefix, style, label in _CURVES:
            rows = [row for row in metrics if prefix + name in row]
            if rows:
                values = [row[prefix + name] for row in rows]
                axes.plot([row["step"] for row in rows], values, label=label, **style)
        _calm(axes)
        axes.set_xlim(0, last)
        _name_axis(axes.xaxis, "step", int(last))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(bottom=0)
        if name != "loss":
            axes.set_ylim(0, 1 if name == "accuracy" else 1.1 * guessing)
            axes.axhline(guessing, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
            place = (float(last), guessing * 0.99 if name != "accuracy" else guessing + 0.02)
            side = "bottom" if name == "accuracy" else "top"
            axes.text(*place, f"guessing {guessing:.2f}", color=GREY, ha="right", va=side)
        if len(axes.lines) > 1 + (name != "loss"):
            axes.legend(frameon=False, loc="lower left" if name != "accuracy" else "upper left")
    return figure


def metric_title(name: str) -> str:
    """Name of a metric as people read it."""
    return {"displacement": "Mean displacement"}.get(name, name.capitalize())


def draw_picture(axes: Axes, view: VolumeView, axis: int, panel: str) -> None:
    """Draw a projection or slice with the boxes and the field of view, in level-0 voxels."""
    down, right = (a for a in range(3) if a != axis)
    picture = view.pictures.get(f"{panel}-{AXES[axis]}")
    if picture is not None:
        bottom = picture.shape[0] * view.factors[down]
        side = picture.shape[1] * view.factors[right]
        axes.imshow(
            _reduced(_stretched(picture, view, axis)),
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(0, side, bottom, 0),
            aspect="auto",
            interpolation="none",
        )
    _draw_uncertainty(axes, view, axis, panel)
    draw_bounds(
        axes,
        view.field_of_view,
        axis,
        view.factors,
        num_slices=view.num_slices,
        middle=None if panel == "projection" else view.middle(0),
    )
    _draw_boxes(axes, view, down, right)
    axes.set_xlim(0, view.shape[right])
    axes.set_ylim(view.shape[down], 0)
    _name_axis(axes.xaxis, AXES[right], view.shape[right])
    _name_axis(axes.yaxis, AXES[down], view.shape[down])


def _draw_boxes(axes: Axes, view: VolumeView, down: int, right: int) -> None:
    """Truth, crops, the box, and the boxes of several specimens with their numbers."""
    # Around several specimens the box is a frame for theirs.
    around = 0.9 if view.specimens else 1.8
    dotted = {"edgecolor": BOX, "linewidth": 0.9, "linestyle": (0, (2, 2))}
    lines: list[tuple[Box | None, str, dict[str, Any]]] = [
        (view.truth, "truth", {"edgecolor": TRUTH, "linewidth": 1.4, "linestyle": (0, (5, 3))}),
        *((box, "crop", dotted) for box in view.crop_boxes),
        (view.box, "box", {"edgecolor": BOX, "linewidth": around}),
        *((box, "specimen", {"edgecolor": BOX, "linewidth": 1.8}) for box in view.specimens),
    ]
    for box, label, style in lines:
        if box is not None:
            corner = (box.start[right], box.start[down])
            patch = Rectangle(corner, box.shape[right], box.shape[down], fill=False, **style)
            patch.set_label(label)
            axes.add_patch(patch)
    for number, box in enumerate(view.specimens, start=1):
        corner = (box.start[right], box.start[down])
        axes.annotate(
            str(number),
            corner,
            xytext=(3, -3),
            textcoords="offset points",
            color=BOX,
            ha="left",
            va="top",
        )


def draw_profile(axes: Axes, view: VolumeView, axis: int) -> None:
    """Draw certainty or variance of every slice, background, threshold, box (paper figure 5).

    What the self-trained network says of the slices is drawn in the colour of the box.
    """
    name, factor = AXES[axis], view.factors[axis]
    stretch = view.stretches.get(name)
    if view.box is not None:
        start, stop = view.box.ranges[axis]
        axes.axvspan(start, stop, color=BOX, alpha=0.14, linewidth=0)
        for edge in (start, stop):
            axes.axvline(edge, color=BOX, linewidth=1.2)
    if stretch:
        axes.axhline(stretch["threshold"], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.axhline(stretch["background"], color=GREY, linewidth=0.9, linestyle=(0, (1, 2)))
    if view.truth is not None:
        for edge in (view.truth.start[axis], view.truth.stop[axis]):
            axes.axvline(edge, color=TRUTH, linewidth=1.2, linestyle=(0, (5, 3)))
    profile = np.asarray(view.profiles.get(name, []), dtype=float)
    axes.plot((np.arange(len(profile)) + 0.5) * factor, profile, color=INK, linewidth=1.3)
    refined = np.asarray(view.refined.get("profiles", {}).get(name, []), dtype=float)
    axes.plot((np.arange(len(refined)) + 0.5) * factor, refined, color=BOX, linewidth=1.1)
    axes.set_xlim(0, view.shape[axis])
    axes.set_ylim(0, 1)
    _calm(axes)
    axes.set_yticks([0, 0.5, 1])
    _name_axis(axes.xaxis, name, view.shape[axis])


def _scale(view: VolumeView) -> float:
    """Points per unit of `spacing`, so that all three views fit their columns at one scale."""
    z, y, x = (n * s for n, s in zip(view.shape, view.spacing, strict=True))
    return float(min((_WIDTH - _LEFT - _RIGHT) / max(y, x), _MAX_HEIGHT / max(z, y)))


def _extent(view: VolumeView, axis: int, scale: float) -> tuple[float, float]:
    """Width and height in points of the picture perpendicular to an axis."""
    down, right = (view.shape[a] * view.spacing[a] * scale for a in range(3) if a != axis)
    # A plate seen from its side is still to be seen.
    return max(12.0, right), max(12.0, down)


def _relative(
    rect: tuple[float, float, float, float], size: tuple[float, float]
) -> tuple[float, float, float, float]:
    left, bottom, width, height = rect
    return left / size[0], bottom / size[1], width / size[0], height / size[1]


def _title(figure: Figure, text: str, left: float, top: float) -> None:
    width, height = (72 * side for side in figure.get_size_inches())
    figure.text(left / width, (top - 13) / height, text, color=INK, fontsize=11)


def _calm(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.patch.set_visible(False)


def _name_axis(side: Axis, name: str, extent: int) -> None:
    """Ticks in round numbers of voxels, and the axis' name where it ends."""
    box = side.axes.get_window_extent()
    length = box.width if side is side.axes.xaxis else box.height
    locator = MaxNLocator(int(np.clip(length // 55, 1, 5)), integer=True, steps=[1, 2, 5, 10])
    # A number needs its room before the name.
    room = extent * (1 - 24 / max(length, 25))
    ticks = [int(t) for t in locator.tick_values(0, extent) if 0 <= t <= room]
    side.set_ticks([*ticks, extent], labels=[*(str(t) for t in ticks), name])


def _draw_uncertainty(axes: Axes, view: VolumeView, axis: int, panel: str) -> None:
    """Variance over the slice, hull of the region over the projection (paper figure 3)."""
    down, right = (a for a in range(3) if a != axis)
    kind = "variance" if panel == "slice" else "region"
    values = view.pictures.get(f"{kind}-{AXES[axis]}")
    if values is None or not values.any():
        return
    bottom, side = values.shape[0] * view.factors[down], values.shape[1] * view.factors[right]
    if panel == "slice":
        shade = np.zeros((*values.shape, 4))
        shade[..., :3] = to_rgb(HEAT)
        shade[..., 3] = 0.6 * np.sqrt(values / 255)
        axes.imshow(shade, extent=(0, side, bottom, 0), aspect="auto", interpolation="none")
        return
    hull = convex_hull_image(values > 0)
    # A frame of nothing closes the line where the region reaches the picture's edge.
    framed = np.pad(hull.astype(float), 1)
    rows = (np.arange(framed.shape[0]) - 0.5) * view.factors[down]
    cols = (np.arange(framed.shape[1]) - 0.5) * view.factors[right]
    axes.contour(cols, rows, framed, levels=[0.5], colors=[HEAT], linewidths=1.3)


def _stretched(picture: UintArray, view: VolumeView, axis: int) -> UintArray:
    """Picture with the grey values that lie inside the field of view spread over the whole range.

    A container is brighter than the sample, and in projections everything is bright.
    """
    inside = pixels_inside(picture.shape, view.field_of_view, axis, view.num_slices)
    if not inside.any():
        inside = np.ones(picture.shape, dtype=bool)
    low, high = np.percentile(picture[inside], (0.5, 99.8))
    # More would show nothing but noise.
    gain = min(2.0, 255 / max(1.0, high - low))
    spread = 127.5 + (picture.astype(np.float32) - (low + high) / 2) * gain
    spread = np.clip(spread, 0, 255)
    if np.median(spread[inside]) < _DARK:
        # Bone or metal takes the bright end; whether the box cuts soft parts must be seen too.
        spread = 255 * (spread / 255) ** _GAMMA
    stretched: UintArray = spread.astype(np.uint8)
    return stretched


def _reduced(picture: UintArray) -> UintArray:
    """Picture with at most `_MAX_PIXELS` on its longest side, and 64 grey values.

    More is not to be seen, and the lowest bits are noise that no compression removes.
    """
    factor = max(picture.shape) / _MAX_PIXELS
    if factor > 1:
        height, width = (max(1, round(n / factor)) for n in picture.shape)
        image = Image.fromarray(picture).resize((width, height), Image.Resampling.BOX)
        picture = np.asarray(image)
    coarse: UintArray = (picture & 0xFC) + (picture >> 6)
    return coarse
