"""Panels of a volume: pictures with boxes, and profiles.

All panels have axes in level-0 voxels, and voxel i covers [i, i + 1). A box [a, b) is drawn from a
to b exactly, at every level of the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image
from skimage.morphology import convex_hull_image

from ctray.core.geometry import AXES, Box
from ctray.report.figures.field_of_view import draw_bounds, pixels_inside
from ctray.report.figures.lines import (
    BACKGROUND,
    BOX,
    CROP,
    PROFILE,
    REGION,
    SAMPLE,
    THRESHOLD,
    TRUTH,
)
from ctray.report.figures.parts import name_axis, open_frame
from ctray.report.figures.view import UintArray, VolumeView

_MAX_PIXELS = 320
# Median grey value below which a picture is dark, and the gamma that brightens it.
_DARK, _GAMMA = 64, 0.6


def draw_picture(axes: Axes, view: VolumeView, axis: int, kind: str) -> None:
    """Draw a picture of a kind, `projection` or `slice`, with boxes and field of view."""
    down, right = (a for a in range(3) if a != axis)
    picture = view.pictures.get(f"{kind}-{AXES[axis]}")
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
    _draw_variance(axes, view, axis, kind)
    draw_bounds(
        axes,
        view.field_of_view,
        axis,
        view.factors,
        num_slices=view.num_slices,
        middle=None if kind == "projection" else view.middle(0),
    )
    _draw_boxes(axes, view, down, right)
    axes.set_xlim(0, view.shape[right])
    axes.set_ylim(view.shape[down], 0)
    name_axis(axes.xaxis, AXES[right], view.shape[right])
    name_axis(axes.yaxis, AXES[down], view.shape[down])


def _draw_boxes(axes: Axes, view: VolumeView, down: int, right: int) -> None:
    """Draw the true box, the crops, the box, and the numbered boxes of several specimens."""
    # Around several specimens the box is only a frame, so it is thin.
    frame = BOX.style(BOX.width / 2 if view.specimens else None)
    boxes: list[tuple[Box | None, str, dict[str, Any]]] = [
        (view.truth, "truth", TRUTH.style()),
        *((box, "crop", CROP.style()) for box in view.crop_boxes),
        (view.box, "box", frame),
        *((box, "specimen", BOX.style()) for box in view.specimens),
    ]
    for box, label, style in boxes:
        if box is not None:
            corner = (box.start[right], box.start[down])
            patch = Rectangle(corner, box.shape[right], box.shape[down], fill=False, **style)
            patch.set_label(label)
            axes.add_patch(patch)
    for number, box in enumerate(view.specimens, start=1):
        axes.annotate(
            str(number),
            (box.start[right], box.start[down]),
            xytext=(3, -3),
            textcoords="offset points",
            color=BOX.color,
            ha="left",
            va="top",
        )


def draw_profile(axes: Axes, view: VolumeView, axis: int) -> None:
    """Draw certainty or variance of every slice, background, threshold and box (paper figure 5).

    After self-training, the probability of sample is drawn in the colour of the box.
    """
    name, factor = AXES[axis], view.factors[axis]
    if view.box is not None:
        start, stop = view.box.ranges[axis]
        axes.axvspan(start, stop, color=BOX.color, alpha=0.14, linewidth=0)
        for edge in (start, stop):
            axes.axvline(edge, **BOX.style(1.2))
    if stretch := view.stretches.get(name):
        axes.axhline(stretch["threshold"], **THRESHOLD.style())
        axes.axhline(stretch["background"], **BACKGROUND.style())
    if view.truth is not None:
        for edge in view.truth.ranges[axis]:
            axes.axvline(edge, **TRUTH.style(1.2))
    for profiles, line in ((view.profiles, PROFILE), (view.sample_profiles, SAMPLE)):
        values = np.asarray(profiles.get(name, []), dtype=float)
        axes.plot((np.arange(len(values)) + 0.5) * factor, values, **line.style())
    axes.set_xlim(0, view.shape[axis])
    axes.set_ylim(0, 1)
    open_frame(axes)
    axes.set_yticks([0, 0.5, 1])
    name_axis(axes.xaxis, name, view.shape[axis])


def _draw_variance(axes: Axes, view: VolumeView, axis: int, kind: str) -> None:
    """Draw the variance in a slice, or the hull of the region in a projection (paper figure 3)."""
    down, right = (a for a in range(3) if a != axis)
    shown = "variance" if kind == "slice" else "region"
    values = view.pictures.get(f"{shown}-{AXES[axis]}")
    if values is None or not values.any():
        return
    bottom, side = values.shape[0] * view.factors[down], values.shape[1] * view.factors[right]
    if kind == "slice":
        shade = np.zeros((*values.shape, 4))
        shade[..., :3] = to_rgb(REGION.color)
        shade[..., 3] = 0.6 * np.sqrt(values / 255)
        axes.imshow(shade, extent=(0, side, bottom, 0), aspect="auto", interpolation="none")
        return
    hull = convex_hull_image(values > 0)
    # The padding closes the line of a region that touches the picture's edge.
    framed = np.pad(hull.astype(float), 1)
    rows = (np.arange(framed.shape[0]) - 0.5) * view.factors[down]
    cols = (np.arange(framed.shape[1]) - 0.5) * view.factors[right]
    axes.contour(cols, rows, framed, levels=[0.5], colors=[REGION.color], linewidths=REGION.width)


def _stretched(picture: UintArray, view: VolumeView, axis: int) -> UintArray:
    """Picture with the grey values inside the field of view stretched to the full range.

    A container is brighter than the sample, and projections are bright everywhere.
    """
    inside = pixels_inside(picture.shape, view.field_of_view, axis, view.num_slices)
    if not inside.any():
        inside = np.ones(picture.shape, dtype=bool)
    low, high = np.percentile(picture[inside], (0.5, 99.8))
    # A higher gain shows only noise.
    gain = min(2.0, 255 / max(1.0, high - low))
    spread = 127.5 + (picture.astype(np.float32) - (low + high) / 2) * gain
    spread = np.clip(spread, 0, 255)
    if np.median(spread[inside]) < _DARK:
        # Bone or metal takes the bright end, but soft parts must stay visible at the box.
        spread = 255 * (spread / 255) ** _GAMMA
    stretched: UintArray = spread.astype(np.uint8)
    return stretched


def _reduced(picture: UintArray) -> UintArray:
    """Picture with at most `_MAX_PIXELS` on its longest side, and 64 grey values.

    The lowest bits are noise, which does not compress.
    """
    factor = max(picture.shape) / _MAX_PIXELS
    if factor > 1:
        height, width = (max(1, round(n / factor)) for n in picture.shape)
        image = Image.fromarray(picture).resize((width, height), Image.Resampling.BOX)
        picture = np.asarray(image)
    coarse: UintArray = (picture & 0xFC) + (picture >> 6)
    return coarse
