"""Figures as compact SVG and PNG, all in one drawing style."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

INK, GREY, RULE = "#1f2933", "#5f6b7a", "#cbd2d9"

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
_FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"


@contextmanager
def drawing_style() -> Iterator[None]:
    """Fonts, colours and line widths of all figures, while one is made or written."""
    with mpl.rc_context(_STYLE):
        yield


def svg_data_uri(figure: Figure) -> str:
    """Picture as a data URI of an SVG: text in the reader's font, voxels as small PNGs."""
    buffer = io.BytesIO()
    with drawing_style():
        figure.set_canvas(FigureCanvasSVG(figure))
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = _compact(buffer.getvalue().decode())
    # The few characters that end an attribute, a fragment or an escape; base64 would cost a third.
    for character, escape in (("%", "%25"), ("#", "%23"), ("&", "%26"), ("<", "%3C"), (">", "%3E")):
        svg = svg.replace(character, escape)
    return f"data:image/svg+xml,{svg}"


def png_bytes(figure: Figure, scale: float = 1.0) -> bytes:
    """Picture as PNG with a palette, `scale` pixels per point."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(72 * scale)
    with drawing_style():
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels[..., :3])
    buffer = io.BytesIO()
    image.quantize(255, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _compact(svg: str) -> str:
    """SVG without what no reader sees, in single quotes."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'data:image/png;base64,\s*([^"]+)', _small_png, svg)
    # Voxels are shown smooth: the pictures are overviews, and squares would draw the eye.
    svg = svg.replace(' style="image-rendering:crisp-edges;image-rendering:pixelated"', "")
    svg = re.sub(r"font-family: [^;\"]*'DejaVu Sans'[^;\"]*;? ?", "", svg)
    svg = re.sub(r"font: (\d+)px 'DejaVu Sans'[^;\"]*", r"font-size: \1px", svg)
    svg = svg.replace("*{", f"text{{font-family: {_FONTS}}} *{{", 1)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    # Ids that nothing refers to.
    svg = re.sub(
        r' id="(figure|axes|patch|line2d|text|xtick|ytick|matplotlib|image)[^"]*"', "", svg
    )
    svg = re.sub(r"(\.\d{3})\d+", r"\1", svg)
    svg = re.sub(r"\s+", " ", re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL))
    return svg.replace("> <", "><").replace('"', "'")


def _small_png(match: re.Match[str]) -> str:
    """Picture as a grey PNG where it has no colour, else with a palette."""
    image = Image.open(io.BytesIO(base64.b64decode(match.group(1)))).convert("RGBA")
    red, green, blue, alpha = (np.asarray(band) for band in image.split())
    if (red == green).all() and (green == blue).all() and alpha.min() == 255:
        small = image.convert("L")
    else:
        # The only method that keeps transparency.
        small = image.quantize(64, method=Image.Quantize.FASTOCTREE)
    buffer = io.BytesIO()
    small.save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
