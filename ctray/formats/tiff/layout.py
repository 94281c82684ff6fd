"""The slices of one TIFF file: `Layout`, and how pages without a description form one."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ctray.core.errors import InvalidVolumeError
from ctray.formats.file_access import damaged
from ctray.formats.tiff.directory import Directory, PageForm, PageTags
from ctray.formats.tiff.ome_xml import OmePlane

# Fewer images than this on a channel axis are colours, not slices.
MAX_CHANNELS = 4
# Two images can be a pair of anything; three similar ones are slices.
_MIN_SLICES = 3
# A page this many times smaller or larger than the slices is another image, not a bad slice.
_OTHER_IMAGE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The slices of one file.

    Parameters
    ----------
    pages
        One page per slice, in order of z; a single page if it holds or precedes all slices.
    counts, axes
        Images along each axis that the file states besides y and x, slowest first, and a letter
        for each axis.
    together
        First byte of the voxels, if all slices lie in one piece behind one page; else None.
    image
        Index of the volume among the images of the OME-XML.
    others
        Planes of the same OME image in other files.
    place
        Position (t, z, c) of the first page in the OME image.
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
        """Number of 2D images of the volume in the file."""
        return math.prod(self.counts) * self.form.depth


def plain_layout(url: str, pages: Sequence[PageTags], notes: Sequence[str]) -> Layout:
    """Layout from the pages alone: those of the one volume, in their order."""
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
        raise damaged(
            url, "TIFF", f"{program}'s description states {images} images, but there is 1 page"
        )
    room = (directory.size - page.data[0]) // page.num_bytes
    if room < images:
        raise damaged(
            url,
            "TIFF",
            f"truncated: {program}'s description states {images} images, but {room} fit",
        )
    used = {axis: n for axis, n in counts.items() if n > 1}
    return Layout(
        pages=(page,), counts=tuple(used.values()), axes="".join(used), together=page.data[0]
    )


def require_one_form(url: str, pages: Sequence[PageTags]) -> None:
    """Raise `InvalidVolumeError` for the first page that differs from the first of `pages`."""
    first = pages[0]
    for page in pages:
        difference = page.form.difference(first.form)
        if difference:
            raise InvalidVolumeError(
                f"{url}: page {page.number} of {len(pages)} has {difference} as page "
                f"{first.number}; export the file again, or remove that page"
            )


def noted(layout: Layout, note: str) -> Layout:
    """`layout` with one more note."""
    return replace(layout, notes=(*layout.notes, note))


def several_stacks(url: str, sizes: Sequence[int], form: PageForm) -> InvalidVolumeError:
    """Error for several stacks of one form in one file, with `sizes` slices each."""
    shown = ", ".join(map(str, sizes[:5])) + (", ..." if len(sizes) > 5 else "")
    return InvalidVolumeError(
        f"{url}: {len(sizes)} stacks in one file, with {shown} slices of {form.size_text}; ctray "
        "cannot tell whether they are one volume, save each as its own file"
    )


def without_copies(pages: Sequence[PageTags]) -> tuple[tuple[PageTags, ...], tuple[str, ...]]:
    """Pages without smaller copies and transparency masks, and a note on the omitted ones.

    A page that is marked as a copy but is as large as the first page is kept, because some
    programs mark every page.
    """
    first = next((page for page in pages if not page.reduced and not page.mask), pages[0])
    left = [
        page
        for page in pages
        if page.mask or (page.reduced and page.form.difference(first.form) and page is not first)
    ]
    if not left:
        return tuple(pages), ()
    dropped = {page.number for page in left}
    kept = tuple(page for page in pages if page.number not in dropped)
    return kept, (f"{describe_pages(left)} left out: marked as smaller copies",)


def main_pages(url: str, pages: Sequence[PageTags]) -> tuple[tuple[PageTags, ...], tuple[str, ...]]:
    """Pages of the one volume among `pages`, and a note on other images before or behind it.

    Raises
    ------
    InvalidVolumeError
        If a page inside the volume differs, or a page of nearly the same size at an end.
    """
    by_form: dict[PageForm, list[PageTags]] = defaultdict(list)
    for page in pages:
        by_form[page.form].append(page)
    if len(by_form) == 1:
        return tuple(pages), ()
    main = max(by_form.values(), key=lambda group: (_is_stack(group), _weight(group)))
    others = [page for page in pages if page.form != main[0].form]
    if len(main) > 1 or main[0].form.depth > 1:
        for page in others:
            inside = main[0].number < page.number < main[-1].number
            if inside or not _is_other_image(page.form, main[0].form):
                raise _odd_page(url, page, main, len(pages))
    return tuple(main), (f"{describe_pages(others)} left out: other images",)


def describe_pages(pages: Iterable[PageTags]) -> str:
    """Number and size of pages, for a note."""
    sizes = Counter(page.form.size_text for page in pages)
    return ", ".join(f"{n} page{'s' if n > 1 else ''} of {size}" for size, n in sizes.items())


def _is_stack(group: Sequence[PageTags]) -> bool:
    return len(group) >= _MIN_SLICES or group[0].form.depth > 1


def _weight(group: Sequence[PageTags]) -> int:
    return sum(page.num_bytes for page in group)


def _is_other_image(form: PageForm, main: PageForm) -> bool:
    if form.samples > 1 and (form.height, form.width) != (main.height, main.width):
        return True
    area, main_area = form.height * form.width, main.height * main.width
    return area * _OTHER_IMAGE <= main_area or area >= main_area * _OTHER_IMAGE


def _odd_page(url: str, page: PageTags, main: Sequence[PageTags], count: int) -> InvalidVolumeError:
    return InvalidVolumeError(
        f"{url}: page {page.number} of {count} has {page.form.difference(main[0].form)} as the "
        "other pages; export the file again, or remove that page"
    )
