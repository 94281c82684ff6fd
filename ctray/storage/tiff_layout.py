"""Which pages of a TIFF are the slices of its volume, and in which order.

Descriptions (ImageJ, OME-XML, tifffile) state how the pages belong together; the pages' own tags
decide whether that can be. Where both disagree, the volume is read with a note or refused, never
shortened.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO

from ctray.errors import InvalidVolumeError
from ctray.storage.ome_xml import OmeImage, OmePlane, is_ome, ome_images
from ctray.storage.source_types import damaged
from ctray.storage.tiff_directory import (
    METAMORPH,
    ZEISS_LSM,
    Directory,
    PageForm,
    PageTags,
)
from ctray.storage.tiff_runs import describe_pages, main_pages, without_copies

# Fewer images than this on a channel axis are colours, not slices.
MAX_CHANNELS = 4
_IMAGEJ_LINE = re.compile(r"^(images|channels|slices|frames)=(\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The slices of one file.

    Parameters
    ----------
    pages
        One page a slice, in order of z; one page alone where all slices lie in or behind it.
    counts, axes
        Images along each axis that the file states beside y and x, slowest first, and a letter
        for each axis.
    together
        First byte of the voxels where all slices lie in one piece behind one page.
    image
        Which image of the OME-XML the volume is.
    others
        Planes of the same OME image that other files hold.
    place
        Place (t, z, c) of the first page in the OME image.
    notes
        Oddities that are no error.
    """

    pages: tuple[PageTags, ...]
    counts: tuple[int, ...]
    axes: str
    together: int | None = None
    image: int = 0
    others: tuple[OmePlane, ...] = ()
    place: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def form(self) -> PageForm:
        """Form of every page."""
        return self.pages[0].form

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with all stated axes, y and x last."""
        depth = (self.form.depth,) if self.form.depth > 1 else ()
        return (*self.counts, *depth, self.form.height, self.form.width)

    @property
    def all_axes(self) -> str:
        """Letters of the axes of `shape`."""
        return self.axes + ("Z" if self.form.depth > 1 else "") + "YX"

    @property
    def num_images(self) -> int:
        """2D images in the file that belong to the volume."""
        return math.prod(self.counts) * self.form.depth


def find_layout(url: str, file: IO[bytes], directory: Directory) -> Layout:
    """Which pages of the open TIFF at `url` are its volume.

    Raises
    ------
    InvalidVolumeError
        If a page inside does not fit the others (it is named), if pages are missing, or if it
        cannot be told which pages belong together.
    """
    text = directory.description(file, directory.pages[0])
    pages, notes = without_copies(directory.pages)
    if text.startswith("ImageJ="):
        return _imagej(url, directory, pages, notes, text)
    if is_ome(text):
        return _ome(url, directory, notes, text)
    if _shape_in(text) is not None:
        return _tifffile(url, file, directory, pages, notes)
    planes, _ = directory.private.get(METAMORPH, (1, 0))
    if planes > 1 and len(directory.pages) == 1:
        return _behind_one_page(url, directory, {"Z": planes}, "MetaMorph")
    layout = _plain(url, pages, notes)
    if ZEISS_LSM in directory.private:
        return _zeiss(url, file, directory, layout)
    return layout


def _plain(url: str, pages: Sequence[PageTags], notes: Sequence[str]) -> Layout:
    chosen, more = main_pages(url, pages)
    counts = (len(chosen),) if len(chosen) > 1 else ()
    return Layout(pages=chosen, counts=counts, axes="Z" * len(counts), notes=(*notes, *more))


# --- ImageJ ---------------------------------------------------------------------------------


def _imagej(
    url: str, directory: Directory, pages: Sequence[PageTags], notes: Sequence[str], text: str
) -> Layout:
    """ImageJ counts images; beyond 4 GB it writes one page with all voxels behind it."""
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
        return _behind_one_page(url, directory, counts, "ImageJ")
    layout = _plain(url, pages, notes)
    found = len(layout.pages)
    if found == images:
        used = {axis: n for axis, n in counts.items() if n > 1}
        return replace(layout, counts=tuple(used.values()), axes="".join(used))
    text = f"ImageJ's description states {images} images, the file holds {found} pages"
    if several or (found < images and _has_room(directory, images)):
        raise InvalidVolumeError(
            f"{url}: {text}; ctray cannot tell how they belong together, save it again in ImageJ"
        )
    return _noted(layout, f"{text}; all {found} pages were taken, in their order")


def _has_room(directory: Directory, images: int) -> bool:
    """Whether more images than pages could lie in one piece behind the first page."""
    first = directory.pages[0]
    return first.data is not None and first.data[0] + images * first.num_bytes <= directory.size


def _behind_one_page(
    url: str, directory: Directory, counts: dict[str, int], program: str
) -> Layout:
    page = directory.pages[0]
    images = math.prod(counts.values())
    if not page.is_plain_piece or page.data is None:
        raise damaged(url, "TIFF", f"{program}'s description states {images} images, 1 page found")
    room = (directory.size - page.data[0]) // page.num_bytes
    if room < images:
        raise damaged(
            url,
            "TIFF",
            f"truncated: {program}'s description states {images} images, {room} are there",
        )
    used = {axis: n for axis, n in counts.items() if n > 1}
    return Layout(
        pages=(page,), counts=tuple(used.values()), axes="".join(used), together=page.data[0]
    )


def _zeiss(url: str, file: IO[bytes], directory: Directory, layout: Layout) -> Layout:
    """Layout with the axes of Zeiss LSM, whose pages are slices, then time points."""
    file.seek(directory.private[ZEISS_LSM][1])
    head = file.read(28)
    if len(head) < 28:
        return layout
    _, _, slices, _, times = struct.unpack(f"{directory.byte_order}5i", head[8:])
    if slices < 2 or times < 2:
        return layout
    if slices * times != len(layout.pages):
        raise damaged(
            url, "TIFF", f"{len(layout.pages)} pages where {times} x {slices} are declared"
        )
    return replace(layout, counts=(times, slices), axes="TZ")


# --- OME-XML --------------------------------------------------------------------------------


def _ome(url: str, directory: Directory, notes: Sequence[str], text: str) -> Layout:
    images = ome_images(text, url.rpartition("/")[2])
    if not any(image.planes for image in images):
        pages, _ = without_copies(directory.pages)
        return _plain(url, pages, (*notes, "OME-XML without images: pages taken in their order"))
    layouts = [
        layout
        for image in images
        if (layout := _ome_image(url, directory, image, notes)) is not None
    ]
    if not layouts:
        raise InvalidVolumeError(
            f"{url}: its OME-XML says that other files hold all planes; "
            "give the folder of the set, or export it again"
        )
    best = max(layouts, key=lambda layout: layout.num_images * layout.form.height)
    rivals = [x for x in layouts if x.num_images > 1 and x.form == best.form and x is not best]
    if rivals and best.num_images > 1:
        raise _several(url, [x.num_images for x in (best, *rivals)], best.form)
    if len(layouts) == 1:
        return _with_unlisted(url, directory, best)
    left = [page for x in layouts if x is not best for page in x.pages]
    return _noted(best, f"{describe_pages(left)} of other images left out")


def _ome_image(
    url: str, directory: Directory, image: OmeImage, notes: Sequence[str]
) -> Layout | None:
    """Layout of one image; None where other files hold all its planes."""
    own = [plane for plane in image.planes if plane.file is None]
    others = tuple(plane for plane in image.planes if plane.file is not None)
    if not own:
        return None
    missing = [plane.page for plane in own if plane.page >= len(directory.pages)]
    listed = len({(p.t, p.z, p.c) for p in image.planes})
    if missing or listed < image.num_planes:
        stated = max(missing) + 1 if missing else image.num_planes
        found = len(directory.pages) if missing else listed
        raise damaged(url, "TIFF", f"{found} pages where OME-XML states {stated}")
    pages = tuple(directory.pages[plane.page] for plane in own)
    if len({page.number for page in pages}) < len(pages):
        raise damaged(url, "TIFF", "OME-XML states one page for several slices")
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
            f"{url}: a file of an OME-TIFF set that holds several channels or times, or slices "
            "that do not follow one another; export each channel and time as its own volume"
        )


def _with_unlisted(url: str, directory: Directory, layout: Layout) -> Layout:
    """Add pages of the same form behind the last one that OME-XML lists: joined files."""
    listed = {page.number for page in layout.pages}
    extra = [
        page
        for page in directory.pages
        if page.number not in listed and not page.reduced and page.form == layout.form
    ]
    if not extra or layout.others:
        return layout
    found = len(layout.pages) + len(extra)
    text = f"OME-XML states {len(layout.pages)} pages, the file holds {found}"
    in_order = [page.number for page in layout.pages] == list(range(1, len(layout.pages) + 1))
    if len(layout.axes) > 1 or layout.axes == "C" or not in_order:
        raise InvalidVolumeError(f"{url}: {text}; ctray cannot tell how they belong together")
    joined = replace(layout, pages=(*layout.pages, *extra), counts=(found,), axes="Z")
    return _noted(joined, f"{text}; all {found} were taken, in their order")


# --- tifffile -------------------------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class _Series:
    """Pages that were written together, and the shape that was noted with them."""

    pages: list[PageTags]
    shape: tuple[int, ...] = ()
    axes: str = ""
    behind: bool = False


def _tifffile(
    url: str,
    file: IO[bytes],
    directory: Directory,
    pages: Sequence[PageTags],
    notes: Sequence[str],
) -> Layout:
    """Each series that tifffile wrote has its shape at its first page."""
    series = _series(url, file, directory, pages)
    if len(series) == 1 and series[0].behind:
        counts = math.prod(series[0].shape) // _voxels(series[0].pages[0])
        return _behind_one_page(url, directory, {"Z": counts}, "tifffile")
    stacks = [s for s in series if len(s.pages) > 1]
    same_form = len({page.form for page in pages}) == 1
    if not stacks or (len(stacks) == 1 and same_form and len(stacks[0].pages) < len(pages)):
        layout = _plain(url, pages, notes)
        if not stacks:
            return layout
        stated = len(stacks[0].pages)
        return _noted(
            layout, f"the first description states {stated} pages; all {len(pages)} were taken"
        )
    best = max(stacks, key=lambda s: sum(page.num_bytes for page in s.pages))
    require_one_form(url, best.pages)
    rivals = [s for s in stacks if s is not best and s.pages[0].form == best.pages[0].form]
    if rivals:
        raise _several(url, [len(s.pages) for s in (best, *rivals)], best.pages[0].form)
    used = set(map(id, best.pages))
    left = [page for page in pages if id(page) not in used]
    layout = _stated(best, notes)
    return _noted(layout, f"{describe_pages(left)} of other series left out") if left else layout


def _series(
    url: str, file: IO[bytes], directory: Directory, pages: Sequence[PageTags]
) -> list[_Series]:
    series: list[_Series] = []
    wanted = 0
    for page in pages:
        if wanted > 0:
            series[-1].pages.append(page)
            wanted -= 1
            continue
        stated = _shape_in(directory.description(file, page)) if page.description else None
        series.append(_Series(pages=[page]))
        if stated is None:
            continue
        shape, axes, behind = stated
        images = math.prod(shape) // _voxels(page)
        if images < 1 or math.prod(shape) % _voxels(page):
            continue
        series[-1].shape, series[-1].axes, series[-1].behind = shape, axes, behind
        wanted = 0 if behind else images - 1
    if wanted > 0:
        stated_pages = len(series[-1].pages) + wanted
        raise damaged(
            url, "TIFF", f"{len(series[-1].pages)} pages where {stated_pages} are declared"
        )
    return series


def _stated(series: _Series, notes: Sequence[str]) -> Layout:
    """Layout of a series, with its axes as they were noted."""
    form = series.pages[0].form
    kept = 3 if form.depth > 1 else 2
    shape, axes = series.shape[:-kept], series.axes[:-kept] or "Q" * len(series.shape[:-kept])
    if math.prod(shape) != len(series.pages):
        # Colours or planes of a page in another order.
        shape, axes = (len(series.pages),), "Z"
    used = [(axis, n) for axis, n in zip(axes, shape, strict=False) if n > 1]
    return Layout(
        pages=tuple(series.pages),
        counts=tuple(n for _, n in used),
        axes="".join(axis for axis, _ in used),
        notes=tuple(notes),
    )


def _shape_in(description: str) -> tuple[tuple[int, ...], str, bool] | None:
    """Shape, axes, and whether all voxels lie behind one page, as tifffile notes them."""
    text = description.strip()
    if text.startswith("shape=("):
        numbers = re.findall(r"\d+", text[:200])
        return (tuple(map(int, numbers)), "", False) if numbers else None
    if not text.startswith('{"shape":'):
        return None
    try:
        found = json.loads(text)
        shape = tuple(int(n) for n in found["shape"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    axes = str(found.get("axes", ""))
    return shape, axes if len(axes) == len(shape) else "", bool(found.get("truncated"))


# --- shared ---------------------------------------------------------------------------------


def require_one_form(url: str, pages: Sequence[PageTags]) -> None:
    """Raise `InvalidVolumeError` for the first page that is unlike the first of `pages`."""
    first = pages[0]
    for page in pages:
        difference = page.form.difference(first.form)
        if difference:
            raise InvalidVolumeError(
                f"{url}: page {page.number} of {len(pages)} has {difference} as page "
                f"{first.number}; export the file again, or take that page out"
            )


def _voxels(page: PageTags) -> int:
    form = page.form
    return form.height * form.width * form.depth * form.samples


def _noted(layout: Layout, note: str) -> Layout:
    return replace(layout, notes=(*layout.notes, note))


def _several(url: str, sizes: Sequence[int], form: PageForm) -> InvalidVolumeError:
    shown = ", ".join(map(str, sizes[:5])) + (", ..." if len(sizes) > 5 else "")
    return InvalidVolumeError(
        f"{url}: {len(sizes)} stacks in one file, of {shown} slices of {form.size_text}; ctray "
        "cannot tell whether they are one volume, save each as its own file"
    )
