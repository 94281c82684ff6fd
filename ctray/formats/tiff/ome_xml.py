"""The OME-XML of a TIFF: its images, and the file and page of each plane."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tifffile

# Planes are listed one by one; a file that declares more is damaged.
_MAX_PLANES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class OmePlane:
    """One plane: its position in the image (from 0) and the page that holds it.

    `file` is the name of another file of the set; None if the plane is in this file.
    """

    z: int
    c: int
    t: int
    page: int
    file: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OmeImage:
    """One `Image` element.

    Parameters
    ----------
    index
        Position among the images of the XML, from 0.
    counts
        Planes along (t, z, c).
    planes
        In the order of (t, z, c).
    """

    index: int
    counts: tuple[int, int, int]
    planes: tuple[OmePlane, ...]

    @property
    def num_planes(self) -> int:
        """Number of planes according to the counts."""
        return math.prod(self.counts)


def is_ome(description: str) -> bool:
    """Whether a TIFF's description is OME-XML."""
    return "<OME" in description[:2048] and description.rstrip().endswith("OME>")


def ome_dict(description: str) -> Mapping[str, Any]:
    """Elements of the XML as nested dicts; empty if it cannot be read."""
    if "<!DOCTYPE" in description or "<!ENTITY" in description:
        # OME-XML has neither, and a few of them can expand to gigabytes.
        return {}
    try:
        found = tifffile.xml2dict(description).get("OME", {})
    except (ValueError, SyntaxError, RecursionError, AttributeError):
        return {}
    return found if isinstance(found, Mapping) else {}


def ome_images(description: str, name: str) -> list[OmeImage]:
    """Images that the XML in the file `name` describes; empty if it cannot be read."""
    root = ome_dict(description)
    images = []
    try:
        for index, image in enumerate(_list(root.get("Image"))):
            images.append(_image(index, image["Pixels"], name, str(root.get("UUID", ""))))
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
    return images


def _image(index: int, pixels: Mapping[str, Any], name: str, own_id: str) -> OmeImage:
    sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "ZCT"}
    channels = _list(pixels.get("Channel"))
    samples = int(channels[0].get("SamplesPerPixel", 1)) if channels else 1
    # The samples of a pixel lie in one page.
    sizes["C"] = max(1, sizes["C"] // max(1, samples))
    total = math.prod(sizes.values())
    if not 0 < total <= _MAX_PLANES:
        raise ValueError(f"{total} planes")
    order = [axis for axis in str(pixels.get("DimensionOrder", "XYZCT")) if axis in "ZCT"]
    planes = sorted(
        _planes(pixels, order, sizes, name, own_id), key=lambda plane: (plane.t, plane.z, plane.c)
    )
    return OmeImage(index=index, counts=(sizes["T"], sizes["Z"], sizes["C"]), planes=tuple(planes))


def _planes(
    pixels: Mapping[str, Any], order: list[str], sizes: Mapping[str, int], name: str, own_id: str
) -> Iterator[OmePlane]:
    blocks = _list(pixels.get("TiffData")) or [{}]
    files = [_file_of(block, own_id) for block in blocks]
    # A file that was renamed still names itself.
    alone = len(set(files)) == 1
    for block, file in zip(blocks, files, strict=True):
        block = block if isinstance(block, Mapping) else {}
        first = tuple(int(block.get(f"First{axis}", 0)) for axis in order)
        whole = "IFD" not in block
        count = int(block.get("PlaneCount", math.prod(sizes.values()) if whole else 1))
        start = int(block.get("IFD", 0))
        begin = _linear(first, order, sizes)
        if begin < 0 or start < 0:
            raise ValueError(f"plane {begin} in page {start}")
        # The stated count may exceed the number of planes.
        for i in range(min(count, math.prod(sizes.values()) - begin)):
            place = _place(begin + i, order, sizes)
            yield OmePlane(
                z=place["Z"],
                c=place["C"],
                t=place["T"],
                page=start + i,
                file=None if alone or file in (None, name) else file,
            )


def _linear(first: tuple[int, ...], order: list[str], sizes: Mapping[str, int]) -> int:
    """Number of the plane at `first`; the first axis of `order` changes fastest."""
    number = 0
    for axis, value in zip(reversed(order), reversed(first), strict=True):
        number = number * sizes[axis] + value
    return number


def _place(number: int, order: list[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Inverse of `_linear`."""
    place = {}
    for axis in order:
        number, place[axis] = divmod(number, sizes[axis])
    return place


def _file_of(block: Any, own_id: str) -> str | None:
    """File that a `TiffData` element names; None if it names no file or its own."""
    element = block.get("UUID") if isinstance(block, Mapping) else None
    if not isinstance(element, Mapping):
        return None
    if own_id and str(element.get("value", "")).strip() == own_id:
        return None
    found = element.get("FileName")
    return str(found) if found else None


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]
