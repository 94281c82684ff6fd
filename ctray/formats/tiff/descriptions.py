"""Which pages of a TIFF are the slices of its volume, and in which order.

Descriptions (ImageJ, OME-XML, tifffile) state how the pages belong together, and the tags of the
pages confirm it or not. If they disagree, the volume is read with a note or refused, but never
shortened.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

from ctray.core.errors import InvalidVolumeError
from ctray.formats.file_access import damaged
from ctray.formats.tiff.directory import METAMORPH, ZEISS_LSM, Directory, PageTags
from ctray.formats.tiff.layout import (
    Layout,
    behind_one_page,
    describe_pages,
    noted,
    plain_layout,
    require_one_form,
    several_stacks,
    without_copies,
)
from ctray.formats.tiff.ome_xml import OmeImage, OmePlane, is_ome, ome_images
from ctray.formats.tiff.series import series_layout, shape_in

_IMAGEJ_LINE = re.compile(r"^(images|channels|slices|frames)=(\d+)\s*$", re.MULTILINE)


def find_layout(url: str, file: IO[bytes], directory: Directory) -> Layout:
    """Find the pages of the open TIFF at `url` that are its volume.

    Raises
    ------
    InvalidVolumeError
        If a page inside differs from the others (it is named), if pages are missing, or if it is
        unclear which pages belong together.
    """
    text = directory.description(file, directory.pages[0])
    pages, notes = without_copies(directory.pages)
    if text.startswith("ImageJ="):
        return _imagej(url, directory, pages, notes, text)
    if is_ome(text):
        return _ome(url, directory, notes, text)
    if shape_in(text) is not None:
        return series_layout(url, file, directory, pages, notes)
    planes, _ = directory.private.get(METAMORPH, (1, 0))
    if planes > 1 and len(directory.pages) == 1:
        return behind_one_page(url, directory, {"Z": planes}, "MetaMorph")
    layout = plain_layout(url, pages, notes)
    if ZEISS_LSM in directory.private:
        return _zeiss(url, file, directory, layout)
    return layout


def _imagej(
    url: str, directory: Directory, pages: Sequence[PageTags], notes: Sequence[str], text: str
) -> Layout:
    """Layout of a file by ImageJ, which writes one page before all voxels beyond 4 GB."""
    stated = {key: int(number) for key, number in _IMAGEJ_LINE.findall(text[:4096])}
    counts = {
        "T": stated.get("frames", 1),
        "Z": stated.get("slices", 1),
        "C": stated.get("channels", 1),
    }
    several = len([n for n in counts.values() if n > 1]) > 1 or counts["C"] > 1
    images = stated.get("images", math.prod(counts.values()))
    if math.prod(counts.values()) == len(directory.pages):
        images = len(directory.pages)
    elif math.prod(counts.values()) != images:
        counts = {"Z": images}
    if len(directory.pages) == 1 and images > 1:
        return behind_one_page(url, directory, counts, "ImageJ")
    layout = plain_layout(url, pages, notes)
    found = len(layout.pages)
    if found == images:
        used = {axis: n for axis, n in counts.items() if n > 1}
        return replace(layout, counts=tuple(used.values()), axes="".join(used))
    text = f"ImageJ's description states {images} images, but the file holds {found} pages"
    if several or (found < images and _has_room(directory, images)):
        raise InvalidVolumeError(
            f"{url}: {text}; ctray cannot tell how they belong together, save it again in ImageJ"
        )
    return noted(layout, f"{text}; all {found} pages are read in their order")


def _has_room(directory: Directory, images: int) -> bool:
    """Whether more images than pages could lie in one piece behind the first page."""
    first = directory.pages[0]
    return first.data is not None and first.data[0] + images * first.num_bytes <= directory.size


def _zeiss(url: str, file: IO[bytes], directory: Directory, layout: Layout) -> Layout:
    """Layout with the axes of Zeiss LSM: slices, then time points."""
    file.seek(directory.private[ZEISS_LSM][1])
    head = file.read(28)
    if len(head) < 28:
        return layout
    _, _, slices, _, times = struct.unpack(f"{directory.byte_order}5i", head[8:])
    if slices < 2 or times < 2:
        return layout
    if slices * times != len(layout.pages):
        raise damaged(url, "TIFF", f"{len(layout.pages)} pages instead of {times} x {slices}")
    return replace(layout, counts=(times, slices), axes="TZ")


def _ome(url: str, directory: Directory, notes: Sequence[str], text: str) -> Layout:
    images = ome_images(text, url.rpartition("/")[2])
    if not any(image.planes for image in images):
        pages, _ = without_copies(directory.pages)
        return plain_layout(
            url, pages, (*notes, "the OME-XML lists no images; pages are read in their order")
        )
    layouts = [
        layout
        for image in images
        if (layout := _ome_image(url, directory, image, notes)) is not None
    ]
    if not layouts:
        raise InvalidVolumeError(
            f"{url}: according to its OME-XML, other files hold all planes; "
            "give the folder of the set, or export it again"
        )
    best = max(layouts, key=lambda layout: layout.num_images * layout.form.height)
    rivals = [x for x in layouts if x.num_images > 1 and x.form == best.form and x is not best]
    if rivals and best.num_images > 1:
        raise several_stacks(url, [x.num_images for x in (best, *rivals)], best.form)
    if len(layouts) == 1:
        return _with_unlisted(url, directory, best)
    left = [page for x in layouts if x is not best for page in x.pages]
    return noted(best, f"{describe_pages(left)} of other images left out")


def _ome_image(
    url: str, directory: Directory, image: OmeImage, notes: Sequence[str]
) -> Layout | None:
    """Layout of one image; None if other files hold all its planes."""
    own = [plane for plane in image.planes if plane.file is None]
    others = tuple(plane for plane in image.planes if plane.file is not None)
    if not own:
        return None
    missing = [plane.page for plane in own if plane.page >= len(directory.pages)]
    listed = len({(p.t, p.z, p.c) for p in image.planes})
    if missing or listed < image.num_planes:
        stated = max(missing) + 1 if missing else image.num_planes
        found = len(directory.pages) if missing else listed
        raise damaged(url, "TIFF", f"{found} pages, but the OME-XML states {stated}")
    pages = tuple(directory.pages[plane.page] for plane in own)
    if len({page.number for page in pages}) < len(pages):
        raise damaged(url, "TIFF", "the OME-XML states one page for several slices")
    require_one_form(url, pages)
    if others:
        _require_one_stretch(url, own)
    counts = image.counts if not others else (1, len(own), 1)
    used = [(axis, n) for axis, n in zip("TZC", counts, strict=True) if n > 1]
    return Layout(
        pages=pages,
        counts=tuple(n for _, n in used),
        axes="".join(axis for axis, _ in used),
        image=image.index,
        others=others,
        place=(own[0].t, own[0].z, own[0].c),
        notes=tuple(notes),
    )


def _require_one_stretch(url: str, own: Sequence[OmePlane]) -> None:
    """Raise unless the planes of one file of a set follow one another along z."""
    first = own[0]
    expected = [(first.t, first.z + i, first.c) for i in range(len(own))]
    if [(plane.t, plane.z, plane.c) for plane in own] != expected:
        raise InvalidVolumeError(
            f"{url}: a file of an OME-TIFF set with several channels or times, or with slices "
            "that do not follow one another; export each channel and time as its own volume"
        )


def _with_unlisted(url: str, directory: Directory, layout: Layout) -> Layout:
    """Add pages of the same form that the OME-XML does not list, as in joined files."""
    listed = {page.number for page in layout.pages}
    extra = [
        page
        for page in directory.pages
        if page.number not in listed and not page.reduced and page.form == layout.form
    ]
    if not extra or layout.others:
        return layout
    found = len(layout.pages) + len(extra)
    text = f"the OME-XML states {len(layout.pages)} pages, but the file holds {found}"
    in_order = [page.number for page in layout.pages] == list(range(1, len(layout.pages) + 1))
    if len(layout.axes) > 1 or layout.axes == "C" or not in_order:
        raise InvalidVolumeError(
            f"{url}: {text}; ctray cannot tell how they belong together, export it again"
        )
    joined = replace(layout, pages=(*layout.pages, *extra), counts=(found,), axes="Z")
    return noted(joined, f"{text}; all {found} are read in their order")
