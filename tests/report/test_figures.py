"""Figures: boxes where they belong, grey values that can be seen, compact encoding."""

from __future__ import annotations

import base64
import io
import re
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.patches import Ellipse, Rectangle
from PIL import Image
from report_makers import (
    BOX,
    CROP,
    FACTOR,
    SHAPE,
    pictures,
)

from ctray.core.geometry import Box
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView
from ctray.report.figures.encoding import svg_data_uri
from ctray.report.figures.view import VolumeView
from ctray.report.figures.volume import axis_figure


def test_variance_is_laid_over_the_slice_in_colour() -> None:
    """The slice below stays grey and opaque, what lies over it is transparent where it is 0."""
    variance = np.zeros((20, 16), np.uint8)
    variance[4:9, 3:7] = 255
    shown = view(pictures=pictures() | {"variance-z": variance})
    svg = unquote(svg_data_uri(axis_figure(shown, 0)))
    found = re.findall(r"data:image/png;base64,\s*([^'\"]+)", svg)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]
    assert [image.mode for image in images].count("L") == 2
    (coloured,) = [image.convert("RGBA") for image in images if image.mode != "L"]
    red, green, blue, alpha = (np.asarray(band) for band in coloured.split())
    assert alpha.min() == 0
    strong = alpha > 100
    assert 0.01 < strong.mean() < 0.2
    assert red[strong].mean() > 200 > 120 > green[strong].mean()
    assert blue[strong].mean() > green[strong].mean()


def test_hull_lies_around_the_region() -> None:
    """Cells [4, 9) by [3, 7) of the working level are voxels [16, 36) by [12, 28)."""
    region = np.zeros((20, 16), np.uint8)
    region[4:9, 3:7] = 255
    shown = view(pictures=pictures() | {"region-z": region, "variance-z": region})
    assert shown.quantity == "Variance"
    panel = axis_figure(shown, 0).axes[0]
    (hull,) = [c for c in panel.collections if type(c).__name__ == "QuadContourSet"]
    points = np.concatenate([path.vertices for path in hull.get_paths()])
    assert points.min(axis=0) == pytest.approx([12, 16], abs=FACTOR / 2)
    assert points.max(axis=0) == pytest.approx([28, 36], abs=FACTOR / 2)


def view(**changes: Any) -> VolumeView:
    values: dict[str, Any] = {
        "shape": SHAPE,
        "factors": (FACTOR,) * 3,
        "pictures": pictures(),
        "box": Box.from_ranges(BOX),
        "crop_boxes": [Box.from_ranges(CROP)],
        "field_of_view": FieldOfView(
            container=Cylinder(center_y=9.5, center_x=7.5, slope_x=0.25, radius=6.0)
        ),
        "profiles": {"z": [0.1] * 24, "y": [0.1] * 20, "x": [0.1] * 16},
        "stretches": {"z": {"range": [5, 15], "threshold": 0.2, "background": 0.1}},
    }
    return VolumeView(**{**values, **changes})


@pytest.mark.parametrize(("axis", "down", "right"), [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_box_lies_on_its_voxels(axis: int, down: int, right: int) -> None:
    figure = axis_figure(view(), axis)
    for axes in figure.axes[:2]:
        boxes = {p.get_label(): p for p in axes.patches if isinstance(p, Rectangle)}
        assert boxes.keys() == {"box", "crop"}
        for label, ranges in (("box", BOX), ("crop", CROP)):
            patch = boxes[label]
            (x0, x1), (y0, y1) = ranges[right], ranges[down]
            assert patch.get_bbox().extents == pytest.approx([x0, y0, x1, y1])
        # The picture's pixels: one of FACTOR voxels each, from edge to edge.
        assert axes.images[0].get_extent() == [0, SHAPE[right], SHAPE[down], 0]
        assert axes.get_xlim() == (0, SHAPE[right])
        assert axes.get_ylim() == (SHAPE[down], 0)


def test_every_specimen_has_its_box_and_number() -> None:
    parts = [
        Box.from_ranges(r) for r in ([[20, 40], [16, 48], [12, 30]], [[45, 60], [16, 30], [20, 40]])
    ]
    axes = axis_figure(view(specimens=parts, crop_boxes=parts), 0).axes[0]

    drawn = [p for p in axes.patches if p.get_label() == "specimen"]
    assert [p.get_bbox().extents.tolist() for p in drawn if isinstance(p, Rectangle)] == [
        [12, 16, 30, 48],
        [20, 16, 40, 30],
    ]
    assert [(t.get_text(), t.xy) for t in axes.texts if hasattr(t, "xy")] == [
        ("1", (12, 16)),
        ("2", (20, 16)),
    ]
    assert sum(p.get_label() == "crop" for p in axes.patches) == 2


def test_box_is_drawn_around_its_pixels() -> None:
    """What the reader sees: the drawn line runs around exactly the pixels of the box."""
    empty = np.zeros((24, 20, 16), dtype=np.uint8)
    empty[5:15, 4:12, 3:10] = 255
    made = {f"projection-{n}": empty.max(axis=a) for a, n in enumerate("zyx")}
    for axis in range(3):
        figure = axis_figure(view(pictures=made, crop_boxes=(), field_of_view=FieldOfView()), axis)
        axes = figure.axes[0]
        picture = np.asarray(axes.images[0].get_array()) > 128
        rows, columns = np.nonzero(picture)
        edges = [columns.min() * 4, rows.min() * 4, columns.max() * 4 + 4, rows.max() * 4 + 4]
        patch = next(p for p in axes.patches if p.get_label() == "box")
        assert patch.get_bbox().extents == pytest.approx(edges)


def test_pictures_show_what_is_faint() -> None:
    """Bone in air takes the bright end, a wall beyond the field of view must not take it all."""
    air = np.zeros((20, 16), dtype=np.uint8)
    air[4:12, 3:10], air[6:8, 4:6] = 40, 255
    bounded = np.full((20, 16), 255, dtype=np.uint8)
    bounded[2:18, 3:13], bounded[8:12, 6:10] = 100, 160
    container = FieldOfView(container=Cylinder(center_y=9.5, center_x=7.5, radius=5.0))
    for picture, bound, contrast in ((air, FieldOfView(), 70), (bounded, container, 115)):
        seen = view(pictures={"projection-z": picture}, field_of_view=bound)
        shown = np.asarray(axis_figure(seen, 0).axes[0].images[0].get_array()).astype(int)
        assert shown[9, 8] - shown[5, 12 if picture is air else 8] >= contrast


def test_last_working_voxel_may_reach_past_the_volume() -> None:
    figure = axis_figure(view(shape=(95, 78, 62)), 0)
    assert figure.axes[0].get_xlim() == (0, 62)
    assert figure.axes[0].images[0].get_extent() == [0, 64, 80, 0]


def test_tilted_container_is_drawn_at_the_slice_shown() -> None:
    projection, middle = axis_figure(view(), 0).axes[:2]
    for axes, z in ((projection, 11.5), (middle, 10)):
        circle = next(p for p in axes.patches if isinstance(p, Ellipse))
        assert circle.center == pytest.approx(((7.5 + 0.25 * z + 0.5) * 4, (9.5 + 0.5) * 4))
        assert (circle.width, circle.height) == (48, 48)
    side = axis_figure(view(), 1).axes[0].lines[0]
    # The wall's left side from the top of the volume to its end: 0.25 voxels a slice.
    assert side.get_ydata() == pytest.approx([0, 96])
    assert side.get_xdata() == pytest.approx([(8 - 0.125 - 6) * 4, (8 + 24 * 0.25 - 0.125 - 6) * 4])


def test_edge_of_medium_is_drawn_and_bounds_nothing() -> None:
    column = Cylinder(center_y=9.5, center_x=7.5, radius=7.0)
    picture = np.arange(320, dtype=np.uint8).reshape(20, 16)
    drawn = {}
    for name, bound in (("none", FieldOfView()), ("column", FieldOfView(column=column))):
        seen = view(pictures={"projection-z": picture}, field_of_view=bound)
        drawn[name] = axis_figure(seen, 0).axes[0]
    (edge,) = (p for p in drawn["column"].patches if isinstance(p, Ellipse))
    assert (edge.get_label(), edge.width) == ("edge of medium", 56)
    shown = [axes.images[0].get_array() for axes in drawn.values()]
    np.testing.assert_array_equal(*shown)


def test_pictures_of_one_volume_share_a_scale() -> None:
    sides = []
    for axis in range(3):
        figure = axis_figure(view(spacing=(1.0, 0.5, 0.5)), axis)
        figure.draw_without_rendering()
        extent = figure.axes[0].get_window_extent()
        down, right = (SHAPE[a] * (1.0, 0.5, 0.5)[a] for a in range(3) if a != axis)
        sides += [extent.width / right, extent.height / down]
    assert sides == pytest.approx([sides[0]] * 6)


def test_svg_keeps_pixels_and_is_well_formed() -> None:
    uri = svg_data_uri(axis_figure(view(), 0))
    assert '"' not in uri
    root = ElementTree.fromstring(unquote(uri.removeprefix("data:image/svg+xml,")))  # noqa: S314
    images = list(root.iter("{http://www.w3.org/2000/svg}image"))
    assert len(images) == 2
    data = images[0].attrib["{http://www.w3.org/1999/xlink}href"].split(",")[1]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (image.mode, image.size) == ("L", (16, 20))
    # Every reference in the compacted file leads somewhere.
    text = unquote(uri)
    targets = set(re.findall(r"(?:url\(|href=')#([^)']+)", text))
    assert targets
    assert all(f"id='{target}'" in text for target in targets)
    assert uri == svg_data_uri(axis_figure(view(), 0))
