"""The slices of one TIFF file, and what is refused whoever stated them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctray.core.errors import InvalidVolumeError
from ctray.formats.source import damaged
from ctray.formats.tiff.directory import Directory, PageForm, PageTags
from ctray.formats.tiff.ome_xml import OmePlane
from ctray.formats.tiff.runs import main_pages

# Fewer images than this on a channel axis are colours, not slices.
MAX_CHANNELS = 4


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


def plain_layout(url: str, pages: Sequence[PageTags], notes: Sequence[str]) -> Layout:
    """Layout by the pages alone: those of the one volume, in their order."""
    chosen, more = main_pages(url, pages)
    counts = (len(chosen),) if len(chosen) > 1 else ()
    return Layout(pages=chosen, counts=counts, axes="Z" * len(counts), notes=(*notes, *more))


def behind_one_page(
    url: str, directory: Directory, counts: Mapping[str, int], program: str
) -> Layout:
    """Layout of `counts` images that lie in one piece behind the only page of the file."""
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


def noted(layout: Layout, note: str) -> Layout:
    """`layout` with one more note."""
    return replace(layout, notes=(*layout.notes, note))


def several_stacks(url: str, sizes: Sequence[int], form: PageForm) -> InvalidVolumeError:
    """Error for stacks of one form in one file, of so many slices each."""
    shown = ", ".join(map(str, sizes[:5])) + (", ..." if len(sizes) > 5 else "")
    return InvalidVolumeError(
        f"{url}: {len(sizes)} stacks in one file, of {shown} slices of {form.size_text}; ctray "
        "cannot tell whether they are one volume, save each as its own file"
    )
