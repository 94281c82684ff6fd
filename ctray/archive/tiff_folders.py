"""What the TIFF files of a folder are: slices, volumes, parts of a recording, or raw scans."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from ctray.archive.findings import Candidate
from ctray.archive.raw_scans import (
    ImageGroup,
    Verdict,
    judge_scan,
    may_need_sizes,
    raw_folders,
    scan_of,
)
from ctray.core.errors import CtrayError
from ctray.formats.slices.stacks import NumberedStack
from ctray.formats.tiff.descriptions import find_layout
from ctray.formats.tiff.directory import PageForm, read_directory
from ctray.formats.tiff.folder import TiffFolderSource
from ctray.formats.tiff.layout import without_copies
from ctray.formats.tiff.ome_xml import is_ome
from ctray.formats.tiff.pages import tiff_damage
from ctray.formats.tiff.source import TiffSource
from ctray.storage import store

# More pages are not counted. So few pages in so many times more numbered files are channels or
# energies, not slices: no scan has 8 slices, and no archive has 4 times as many scans as slices.
_PEEK_PAGES = 33
_FEW_PAGES = ((8, 1), (32, 4))
# Names are compared in pairs to find parts; a folder with thousands of single files has none.
_FEW_STACKS = 200
# Text that programs add for the number of a part: "_1", "-file002", " (2)", "_X2".
_PART = r"[-_. (]{1,2}[a-z]{0,4}[-_]?(\*|\d+)\)?\."
# Cameras begin a new file before 2 or 4 GiB, the limits of TIFF.
_SPLIT_BYTES = (19 * 2**30 // 10, 43 * 2**30 // 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class TiffFolder:
    """The TIFF files of one folder in groups; `one_stack` if its URL alone means a stack."""

    url: str
    path: tuple[str, ...]
    stacks: tuple[NumberedStack, ...]
    one_stack: bool


# Verdicts by URL of the folder and pattern of the stack.
Verdicts = Mapping[tuple[str, str], Verdict]


class _Peek(NamedTuple):
    """First look at a file: number of 2D images (at most `_PEEK_PAGES`), their form, file size."""

    images: int
    form: PageForm
    size: int
    in_set: bool


def judge_names(folders: Sequence[TiffFolder]) -> Verdicts:
    """Separate raw scans from volumes by the names of files and folders."""
    every = [
        (folder, stack, _group(folder, stack)) for folder in folders for stack in folder.stacks
    ]
    raw = raw_folders(group for _, _, group in every)
    scans: dict[tuple[str, ...], list[tuple[TiffFolder, NumberedStack, ImageGroup]]]
    scans = defaultdict(list)
    for folder, stack, group in every:
        scans[scan_of(group, raw)].append((folder, stack, group))
    verdicts: dict[tuple[str, str], Verdict] = {}
    for members in scans.values():
        groups = [group for _, _, group in members]
        if may_need_sizes(groups):
            groups = [_measured(f, s, g) for f, s, g in members]
        for (folder, stack, _), verdict in zip(members, judge_scan(groups), strict=True):
            verdicts[folder.url, stack.pattern] = verdict
    for (url, pattern), note in _continued(folders):
        verdict = verdicts[url, pattern]
        notes = [text for text in (verdict.note, note) if text]
        verdicts[url, pattern] = replace(verdict, note="; ".join(notes))
    return verdicts


def _group(folder: TiffFolder, stack: NumberedStack) -> ImageGroup:
    return ImageGroup(folder=folder.path, stem=stack.stem, num_images=len(stack.names))


def _continued(folders: Sequence[TiffFolder]) -> Iterator[tuple[tuple[str, str], str]]:
    """Notes on stacks whose numbering continues in a neighbouring folder."""
    beside: dict[tuple[tuple[str, ...], str], list[tuple[TiffFolder, NumberedStack]]]
    beside = defaultdict(list)
    for folder in folders:
        for stack in folder.stacks:
            if stack.is_long and stack.numbers:
                beside[folder.path[:-1], stack.pattern].append((folder, stack))
    for members in beside.values():
        members.sort(key=lambda member: member[1].numbers[0])
        for (folder, stack), (following, more) in pairwise(members):
            step = stack.numbers[-1] - stack.numbers[-2]
            if more.numbers[0] == stack.numbers[-1] + step:
                yield (
                    (folder.url, stack.pattern),
                    f"the numbering continues in {following.url}; put the files of one volume "
                    "into one folder",
                )


def expand(folder: TiffFolder, verdicts: Verdicts) -> list[Candidate]:
    """Candidates among the TIFF files of a folder: stacks of files, and single files."""
    found: list[Candidate] = []
    for stack in folder.stacks:
        verdict = verdicts.get((folder.url, stack.pattern), Verdict())
        if verdict == Verdict() and len(stack.names) == 1 and len(folder.stacks) <= _FEW_STACKS:
            verdict = Verdict(note=_note_on_parts(folder, stack))
        if stack.is_long or stack.is_split or _may_be_ome_set(stack):
            found.extend(_expand_stack(folder, stack, verdict))
        else:
            found.extend(_files(folder, stack, verdict, note=None))
    return found


def _may_be_ome_set(stack: NumberedStack) -> bool:
    return len(stack.names) > 1 and stack.names[0].lower().endswith((".ome.tif", ".ome.tiff"))


def _note_on_parts(folder: TiffFolder, first: NumberedStack) -> str | None:
    """Note on `scan_1.tif` beside `scan.tif`, which may be its second part."""
    head, _, suffix = first.names[0].rpartition(".")
    pattern = re.compile(re.escape(head) + _PART + re.escape(suffix), re.IGNORECASE)
    more = [stack for stack in folder.stacks if pattern.fullmatch(stack.pattern)]
    if not more:
        return None
    peeks = [_peek(store.join(folder.url, s.names[0])) for s in (first, *more)]
    forms = {peek.form if peek and peek.images > 1 else None for peek in peeks}
    if len(forms) > 1 or None in forms:
        return None
    return (
        f"{', '.join(stack.pattern for stack in more)} may be parts of the same recording, but "
        "are separate volumes in the catalog; to join them with this file, rename them to "
        f"{head}@0001.{suffix} and so on"
    )


def _expand_stack(folder: TiffFolder, stack: NumberedStack, verdict: Verdict) -> list[Candidate]:
    if verdict.no_volume is not None:
        return [_as_one(folder, stack, verdict)]
    peeks = _peeks(folder, stack)
    several = [peek for peek in peeks if peek.images > 1]
    if stack.is_split or (peeks and all(peek.in_set for peek in peeks)):
        return [_as_one(folder, stack, verdict)]
    if not stack.is_long:
        return _files(folder, stack, verdict, note=None)
    # One different file among three is a bad slice; opening the stack names it.
    if 2 * len(several) <= len(peeks):
        return [_as_one(folder, stack, verdict, reason=stack.problem)]
    if _is_cut_at_limit(peeks):
        return [_as_one(folder, stack, verdict)]
    most = max(peek.images for peek in peeks)
    if any(most <= pages and len(stack.names) > times * most for pages, times in _FEW_PAGES):
        reason = (
            f"{len(stack.names)} numbered files ({stack.pattern}) of {most} pages each look like "
            "one file per slice with a page for each channel or energy; export each channel as "
            "its own stack"
        )
        return [_as_one(folder, stack, verdict, reason=reason)]
    alike = len({peek.form for peek in peeks}) == 1
    note = (
        f"{len(stack.names)} numbered files with slices of one size are separate volumes; if they "
        f"are parts of one recording, give {store.join(folder.url, stack.pattern)}"
    )
    return _files(folder, stack, verdict, note=note if alike else None)


def _as_one(
    folder: TiffFolder, stack: NumberedStack, verdict: Verdict, *, reason: str | None = None
) -> Candidate:
    """A stack as one candidate; the folder's URL means its only long stack."""
    alone = folder.one_stack and stack.is_long
    url = folder.url if alone else store.join(folder.url, stack.pattern)
    return Candidate(
        url=url,
        path=folder.path if alone else (*folder.path, stack.stem or stack.pattern),
        kind=TiffFolderSource.kind,
        reason=None if reason is None else f"{url}: {reason}",
        no_volume=None if verdict.no_volume is None else f"{url}: {verdict.no_volume}",
        note=verdict.note,
    )


def _files(
    folder: TiffFolder, stack: NumberedStack, verdict: Verdict, *, note: str | None
) -> list[Candidate]:
    """Each file of a stack as a candidate; the first carries the `note` on all of them."""
    found = []
    for i, name in enumerate(stack.names):
        url = store.join(folder.url, name)
        notes = [text for text in (verdict.note, note if i == 0 else None) if text]
        found.append(
            Candidate(
                url=url,
                path=(*folder.path, name),
                kind=TiffSource.kind,
                no_volume=None if verdict.no_volume is None else f"{url}: {verdict.no_volume}",
                note="; ".join(notes) or None,
            )
        )
    return found


def _peeks(folder: TiffFolder, stack: NumberedStack) -> list[_Peek]:
    """First looks at the first, middle and last file; unreadable files are ignored."""
    names = stack.names
    probes = dict.fromkeys((names[0], names[len(names) // 2], names[-1]))
    peeks = [_peek(store.join(folder.url, name)) for name in probes]
    return [peek for peek in peeks if peek is not None]


def _peek(url: str) -> _Peek | None:
    try:
        with store.open_binary(url) as file, tiff_damage(url):
            directory = read_directory(url, file, limit=_PEEK_PAGES)
            if is_ome(directory.description(file, directory.pages[0])):
                # Only the whole directory tells which planes other files hold.
                directory = read_directory(url, file)
            if len(directory.pages) != _PEEK_PAGES:
                layout = find_layout(url, file, directory)
                images, form, in_set = layout.num_images, layout.form, bool(layout.others)
            else:
                pages, _ = without_copies(directory.pages)
                images, form, in_set = len(pages), pages[0].form, False
            return _Peek(images=images, form=form, size=directory.size, in_set=in_set)
    except CtrayError:
        return None


def _measured(folder: TiffFolder, stack: NumberedStack, group: ImageGroup) -> ImageGroup:
    """`group` with the size of its images, and the number of images in a single file."""
    url = store.join(folder.url, stack.names[0])
    alone = len(stack.names) == 1
    try:
        with store.open_binary(url) as file, tiff_damage(url):
            pages = read_directory(url, file, limit=None if alone else 1).pages
    except CtrayError:
        return group
    size = (pages[0].form.height, pages[0].form.width)
    return replace(group, size=size, num_images=len(pages) if alone else group.num_images)


def _is_cut_at_limit(peeks: Sequence[_Peek]) -> bool:
    """Whether all files have one size near a limit of TIFF, except a smaller last one."""
    low, high = _SPLIT_BYTES
    *full, last = [peek.size for peek in peeks]
    alike = len({peek.form for peek in peeks}) == 1
    return alike and len(set(full)) == 1 and low <= full[0] <= high and last < full[0]
