"""Pages of a TIFF without a description of how they belong together: slices and other images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ctray.core.errors import InvalidVolumeError
from ctray.formats.tiff.directory import PageForm, PageTags

# Two images can be anything; three alike are slices.
_MIN_SLICES = 3
# A page this many times smaller or larger than the slices is another image, no bad slice.
_OTHER_IMAGE = 4


def without_copies(pages: Sequence[PageTags]) -> tuple[tuple[PageTags, ...], tuple[str, ...]]:
    """Pages that are no smaller copies and no transparency, and a note on those left out.

    A page that is marked as a copy but is as large as the first page stays: some programs mark
    every page.
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
        If a page inside, or one of nearly the same size at an end, differs from the others.
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
    """How many pages of which size, for a note."""
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
        "other pages; export the file again, or take that page out"
    )
