"""Series of pages with a shape in their description, as tifffile writes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from ctray.formats.file_access import damaged
from ctray.formats.tiff.directory import Directory, PageTags
from ctray.formats.tiff.layout import (
    Layout,
    behind_one_page,
    describe_pages,
    noted,
    plain_layout,
    require_one_form,
    several_stacks,
)


@dataclass(kw_only=True, slots=True)
class _Series:
    """Pages that were written together, and their stated shape."""

    pages: list[PageTags]
    shape: tuple[int, ...] = ()
    axes: str = ""
    behind: bool = False


def series_layout(
    url: str,
    file: IO[bytes],
    directory: Directory,
    pages: Sequence[PageTags],
    notes: Sequence[str],
) -> Layout:
    """Layout of a file by tifffile, which states the shape of each series at its first page."""
    series = _series(url, file, directory, pages)
    if len(series) == 1 and series[0].behind:
        counts = math.prod(series[0].shape) // _voxels(series[0].pages[0])
        return behind_one_page(url, directory, {"Z": counts}, "tifffile")
    stacks = [s for s in series if len(s.pages) > 1]
    same_form = len({page.form for page in pages}) == 1
    if not stacks or (len(stacks) == 1 and same_form and len(stacks[0].pages) < len(pages)):
        layout = plain_layout(url, pages, notes)
        if not stacks:
            return layout
        stated = len(stacks[0].pages)
        return noted(
            layout, f"the first description states {stated} pages; all {len(pages)} are read"
        )
    best = max(stacks, key=lambda s: sum(page.num_bytes for page in s.pages))
    require_one_form(url, best.pages)
    rivals = [s for s in stacks if s is not best and s.pages[0].form == best.pages[0].form]
    if rivals:
        raise several_stacks(url, [len(s.pages) for s in (best, *rivals)], best.pages[0].form)
    used = set(map(id, best.pages))
    left = [page for page in pages if id(page) not in used]
    layout = _stated(best, notes)
    return noted(layout, f"{describe_pages(left)} of other series left out") if left else layout


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
        stated = shape_in(directory.description(file, page)) if page.description else None
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
        raise damaged(url, "TIFF", f"{len(series[-1].pages)} pages instead of {stated_pages}")
    return series


def _stated(series: _Series, notes: Sequence[str]) -> Layout:
    """Layout of a series with its stated axes."""
    form = series.pages[0].form
    kept = 3 if form.depth > 1 else 2
    shape, axes = series.shape[:-kept], series.axes[:-kept] or "Q" * len(series.shape[:-kept])
    if math.prod(shape) != len(series.pages):
        # The planes of a page may be stored in another order.
        shape, axes = (len(series.pages),), "Z"
    used = [(axis, n) for axis, n in zip(axes, shape, strict=False) if n > 1]
    return Layout(
        pages=tuple(series.pages),
        counts=tuple(n for _, n in used),
        axes="".join(axis for axis, _ in used),
        notes=tuple(notes),
    )


def shape_in(description: str) -> tuple[tuple[int, ...], str, bool] | None:
    """Shape, axes, and whether all voxels lie behind one page, from tifffile's description."""
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


def _voxels(page: PageTags) -> int:
    form = page.form
    return form.height * form.width * form.depth * form.samples
