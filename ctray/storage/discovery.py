"""Where the volumes of an archive are: folders are walked, names are judged, no voxel is read."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ctray.errors import CtrayError
from ctray.storage import store
from ctray.storage.hdf5_source import is_hdf5_name
from ctray.storage.metadata import UNFINISHED, is_image
from ctray.storage.source_types import Kind
from ctray.storage.sources import ZARR_MARKERS
from ctray.storage.stacks import NumberedStack, group_numbered
from ctray.storage.tiff_folder import MIN_STACK_FILES
from ctray.storage.tiff_pages import is_single_page, is_tiff_name
from ctray.storage.zarr_json import as_mapping, read_document

# Real archives are up to ten folders deep. Each level waits for the listings of the one above.
MAX_FOLDER_DEPTH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Something that should be a volume.

    Parameters
    ----------
    url
        What `open_source` takes.
    path
        Names from the archive's folder (included) down to its own.
    kind
        What it looks like from outside.
    reason
        Why it cannot even be looked at; None where it can.
    """

    url: str
    path: tuple[str, ...]
    kind: Kind
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NameFilter:
    """Globs on names and on paths below the archive, without regard to case.

    Parameters
    ----------
    include
        If any are given, only what one of them matches is taken.
    exclude
        What one of them matches is left out, folders with all that is in them.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def is_excluded(self, path: Sequence[str]) -> bool:
        """Whether `path` (names below the archive) is to be left out."""
        return _matches(path, self.exclude)

    def is_included(self, path: Sequence[str]) -> bool:
        """Whether `path`, or a folder above it, is asked for."""
        return not (self.include and path) or any(
            _matches(path[: i + 1], self.include) for i in range(len(path))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _TiffFolder:
    """The TIFF files of one folder, grouped; `one_stack` if its URL alone names a stack."""

    url: str
    path: tuple[str, ...]
    stacks: tuple[NumberedStack, ...]
    one_stack: bool


@dataclass(kw_only=True, slots=True)
class _Walk:
    """What a walk has gathered so far."""

    names: NameFilter
    found: list[Found] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    tiffs: list[_TiffFolder] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


# Entries of a folder, the error of one that cannot be listed, or what it is as a whole.
_Listing = list[store.Entry] | CtrayError | Kind


def find_volumes(
    archive_url: str, names: NameFilter, *, max_workers: int
) -> tuple[list[Found], list[str]]:
    """Everything under `archive_url` that should be a volume, and the paths left out.

    Folders are listed level by level, several at once, each once (a link back up ends there).
    A Zarr array or image is one entry and never listed further; a plain Zarr group is a folder.
    """
    root = (archive_url.rpartition("/")[2] or "archive",)
    walk = _Walk(names=names)
    level: list[tuple[str, tuple[str, ...]]] = [(archive_url, root)]
    with ThreadPoolExecutor(max_workers, thread_name_prefix="ctray-list") as pool:
        while level:
            level = [folder for folder in level if _is_new(folder[0], walk)]
            if level and len(level[0][1]) > MAX_FOLDER_DEPTH:
                walk.found.extend(_too_deep(url, path) for url, path in level)
                break
            listings = list(pool.map(lambda folder: _list(folder[0]), level))
            below: list[tuple[str, tuple[str, ...]]] = []
            for (url, path), listing in zip(level, listings, strict=True):
                if path == root and isinstance(listing, CtrayError):
                    raise listing
                below.extend(_visit(url, path, listing, walk))
            level = below
        for found in pool.map(_expand_tiffs, walk.tiffs):
            walk.found.extend(found)
    return [f for f in walk.found if names.is_included(f.path[1:])], walk.excluded


def _too_deep(url: str, path: tuple[str, ...]) -> Found:
    reason = (
        f"{url}: {MAX_FOLDER_DEPTH} folders deep; it was not looked into; give it as the archive"
    )
    return Found(url=url, path=path, kind="tiff-folder", reason=reason)


def _is_new(url: str, walk: _Walk) -> bool:
    real = str(Path(url).resolve()) if store.is_local(url) else url
    new = real not in walk.seen
    walk.seen.add(real)
    return new


def _list(url: str) -> _Listing:
    """Entries of a folder; the error of one that cannot be listed; the kind if it is Zarr."""
    try:
        if url.lower().endswith(".zarr"):
            # By name first: the chunks of a bare array may be thousands of names.
            return "zarr" if not _is_plain_group(url) else store.list_dir(url)
        entries = store.list_dir(url)
        names = {entry.name for entry in entries}
        if names & ZARR_MARKERS and not _is_plain_group(url):
            return "zarr"
        return "zarr" if UNFINISHED in names else entries
    except CtrayError as error:
        return error


def _is_plain_group(url: str) -> bool:
    """Whether `url` is a Zarr group that is no image: a folder of arrays and images."""
    try:
        group, _ = read_document(store.join(url, "zarr.json"))
        if group is not None:
            attributes = as_mapping(url, group.get("attributes", {}))
            return group.get("node_type") == "group" and not is_image(attributes)
        if read_document(store.join(url, ".zgroup"))[0] is None:
            return False
        attributes_v2, _ = read_document(store.join(url, ".zattrs"))
        return not is_image(attributes_v2 or {})
    except CtrayError:
        # Damaged: opening it gives the error.
        return False


def _visit(
    url: str, path: tuple[str, ...], listing: _Listing, walk: _Walk
) -> list[tuple[str, tuple[str, ...]]]:
    """Note what a folder holds; the folders below that are to be walked."""
    if isinstance(listing, CtrayError):
        walk.found.append(Found(url=url, path=path, kind="tiff-folder", reason=str(listing)))
        return []
    if isinstance(listing, str):
        walk.found.append(Found(url=url, path=path, kind=listing))
        return []
    below: list[tuple[str, tuple[str, ...]]] = []
    tiffs: list[str] = []
    for entry in listing:
        inner = (*path, entry.name)
        if entry.name.startswith(".") or entry.name in ("__MACOSX", "lost+found"):
            continue
        is_volume = is_tiff_name(entry.name) or is_hdf5_name(entry.name)
        if walk.names.is_excluded(inner[1:]):
            if entry.is_dir or is_hdf5_name(entry.name):
                walk.excluded.append("/".join(inner[1:]))
            elif is_volume:
                tiffs.append(entry.name)
        elif entry.is_dir:
            below.append((entry.url, inner))
        elif is_tiff_name(entry.name):
            tiffs.append(entry.name)
        elif is_volume:
            walk.found.append(Found(url=entry.url, path=inner, kind="hdf5"))
    if tiffs:
        walk.tiffs.append(_judge_tiffs(url, path, tiffs, walk))
    return below


def _judge_tiffs(url: str, path: tuple[str, ...], names: Iterable[str], walk: _Walk) -> _TiffFolder:
    """Group the TIFF files of a folder and set the excluded apart; a stack of them counts once."""
    stacks = group_numbered(names)
    kept = []
    for stack in stacks:
        if not walk.names.is_excluded((*path[1:], stack.names[0])):
            kept.append(stack)
            continue
        shown = (stack.pattern,) if _is_long(stack) else stack.names
        walk.excluded.extend("/".join((*path[1:], name)) for name in shown)
    # The folder's URL means its only stack; with a second one, a pattern has to name it.
    one_stack = len([stack for stack in stacks if _is_long(stack)]) == 1
    return _TiffFolder(url=url, path=path, stacks=tuple(kept), one_stack=one_stack)


def _expand_tiffs(folder: _TiffFolder) -> list[Found]:
    """Volumes among the TIFF files of a folder: stacks of single pages, and files by themselves."""
    found: list[Found] = []
    for stack in folder.stacks:
        if not (_is_long(stack) and _is_stack_of_pages(folder.url, stack)):
            for name in stack.names:
                url = store.join(folder.url, name)
                found.append(Found(url=url, path=(*folder.path, name), kind="tiff"))
        elif folder.one_stack:
            found.append(Found(url=folder.url, path=folder.path, kind="tiff-folder"))
        else:
            url = store.join(folder.url, stack.pattern)
            path = (*folder.path, stack.stem or stack.pattern)
            found.append(Found(url=url, path=path, kind="tiff-folder"))
    return found


def _is_long(stack: NumberedStack) -> bool:
    return len(stack.names) >= MIN_STACK_FILES


def _is_stack_of_pages(url: str, stack: NumberedStack) -> bool:
    """Whether numbered files are the slices of one volume, judged by three of them.

    Files that cannot be read count for neither; if none can, the stack as a whole fails later.
    """
    count = len(stack.names)
    for name in (stack.names[0], stack.names[count // 2], stack.names[-1]):
        try:
            if not is_single_page(store.join(url, name)):
                return False
        except CtrayError:
            continue
    return True


def _matches(path: Sequence[str], patterns: Iterable[str]) -> bool:
    """Whether the last name of `path`, or all of it, matches one of `patterns`."""
    if not path:
        return False
    name, whole = path[-1].lower(), "/".join(path).lower()
    return any(
        fnmatch.fnmatchcase(name, pattern.lower()) or fnmatch.fnmatchcase(whole, pattern.lower())
        for pattern in patterns
    )
