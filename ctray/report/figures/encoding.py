"""Figures as compact SVG and PNG."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from ctray.report.figures.lines import drawing_style

_FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"


def svg_data_uri(figure: Figure) -> str:
    """Figure as a data URI: an SVG with text in the reader's font and voxels as small PNGs."""
    buffer = io.BytesIO()
    with drawing_style():
        figure.set_canvas(FigureCanvasSVG(figure))
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = _compact(buffer.getvalue().decode())
    # Only the characters that end an attribute, a fragment or an escape: base64 adds a third.
    for character, escape in (("%", "%25"), ("#", "%23"), ("&", "%26"), ("<", "%3C"), (">", "%3E")):
        svg = svg.replace(character, escape)
    return f"data:image/svg+xml,{svg}"


def png_bytes(figure: Figure, scale: float = 1.0) -> bytes:
    """Figure as PNG with a palette, `scale` pixels per point."""
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
    """SVG in single quotes, without parts that no reader sees."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'data:image/png;base64,\s*([^"]+)', _small_png, svg)
    # Voxels are shown smooth: the pictures are overviews, and squares would distract.
    svg = svg.replace(' style="image-rendering:crisp-edges;image-rendering:pixelated"', "")
    svg = re.sub(r"font-family: [^;\"]*'DejaVu Sans'[^;\"]*;? ?", "", svg)
    svg = re.sub(r"font: (\d+)px 'DejaVu Sans'[^;\"]*", r"font-size: \1px", svg)
    svg = svg.replace("*{", f"text{{font-family: {_FONTS}}} *{{", 1)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    # Ids without references.
    svg = re.sub(
        r' id="(figure|axes|patch|line2d|text|xtick|ytick|matplotlib|image)[^"]*"', "", svg
    )
    svg = re.sub(r"(\.\d{3})\d+", r"\1", svg)
    svg = re.sub(r"\s+", " ", re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL))
    return svg.replace("> <", "><").replace('"', "'")


def _small_png(match: re.Match[str]) -> str:
    """Grey PNG if the picture has no colour, otherwise a PNG with a palette."""
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
