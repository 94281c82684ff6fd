"""Where the volumes of an archive are: folders are walked, names are judged, no voxel is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from ctray.archive.coverage import LeftOut
from ctray.archive.findings import Candidate, Findings, OtherFile
from ctray.archive.folder_files import judge_files
from ctray.archive.name_filter import NameFilter
from ctray.archive.tiff_folders import TiffFolder, expand, judge_names
from ctray.archive.time_limit import guarded_map
from ctray.archive.volume_ids import is_weak
from ctray.core.errors import (
    CtrayError,
    StorageError,
    one_line,
    printable,
)
from ctray.formats.registry import N5, TIFF, format_of
from ctray.formats.slices.stacks import group_numbered
from ctray.formats.tiff.folder import TiffFolderSource
from ctray.formats.zarr import ZARR_MARKERS, ZarrSource
from ctray.storage import store
from ctray.volumes.metadata import UNFINISHED, is_image
from ctray.volumes.zarr_json import as_mapping, read_document


@dataclass(kw_only=True, slots=True)
class _Walk:
    """State of a walk.

    `root` is the archive's folder, once it was visited. `is_full` says that there are more
    folders than are listed.
    """

    names: NameFilter
    root: str = ""
    is_full: bool = False
    findings: Findings = field(default_factory=Findings)
    tiffs: list[TiffFolder] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


_Folder = tuple[str, tuple[str, ...]]
# Entries of a folder, the error of one that cannot be listed, or the kind of a folder that is Zarr.
_Listing = list[store.Entry] | CtrayError | str
# People nest a dozen folders; only a faulty program makes deeper ones.
_MAX_DEPTH = 64
# A store can list endless folders.
_MAX_FOLDERS = 200_000


def find_volumes(archive_url: str, names: NameFilter, *, max_workers: int) -> Findings:
    """Find everything under `archive_url` that should be a volume, and everything else.

    Folders are listed level by level, several at once, and each only once, so that links upward
    end. A Zarr array or image is one candidate and not listed further. A plain Zarr group is a
    folder.
    """
    root = (root_name(archive_url),)
    walk = _Walk(names=names)
    level: list[_Folder] = [(archive_url, root)]
    while level:
        level = _within_count([f for f in level if _is_new(f[0], walk)], walk)
        below: list[_Folder] = []
        listings = guarded_map(_list, [url for url, _ in level], max_workers=max_workers)
        for (url, path), listing in zip(level, listings, strict=True):
            if isinstance(listing, BaseException):
                listing = StorageError(f"{url}: {one_line(listing) or type(listing).__name__}")
            if path == root and isinstance(listing, CtrayError):
                raise listing
            below.extend(_visit(url, path, listing, walk))
        level = below
    findings = walk.findings
    verdicts = judge_names(walk.tiffs)
    expanded = guarded_map(
        lambda folder: expand(folder, verdicts), walk.tiffs, max_workers=max_workers
    )
    for folder, found in zip(walk.tiffs, expanded, strict=True):
        if isinstance(found, BaseException):
            reason = f"{folder.url}: {one_line(found) or type(found).__name__}"
            found = [_unreadable(folder.url, folder.path, reason)]
        findings.candidates.extend(found)
    findings.candidates = [f for f in findings.candidates if names.is_included(f.path[1:])]
    findings.others = [f for f in findings.others if names.is_included(f.path[1:])]
    return findings


def _unreadable(url: str, path: tuple[str, ...], reason: str) -> Candidate:
    """Candidate for a folder whose content is unknown."""
    return Candidate(url=url, path=path, kind=TiffFolderSource.kind, reason=reason)


def _within_count(level: list[_Folder], walk: _Walk) -> list[_Folder]:
    """Folders of a level, up to the limit of one archive."""
    most = max(0, _MAX_FOLDERS - (len(walk.seen) - len(level)))
    if len(level) > most and not walk.is_full:
        walk.is_full = True
        url = level[most][0]
        reason = f"{url} and others: skipped, over {_MAX_FOLDERS:,} folders in one archive"
        walk.findings.left_out.append(LeftOut(url=url, reason=reason))
    return level[:most]


def root_name(url: str) -> str:
    """Name of the archive; folders above it are added while the name is weak, like `rec_8bit`."""
    above, _, name = url.rpartition("/")
    while is_weak(name) and above.rpartition("/")[2]:
        above, _, parent = above.rpartition("/")
        name = f"{parent}_{name}" if name else parent
    return name or "archive"


def _is_new(url: str, walk: _Walk) -> bool:
    """Whether a folder must be listed: it is new and does not hold the archive."""
    # Not `Path.resolve`, which raises if links form a circle.
    real = os.path.realpath(url) if store.is_local(url) else url
    if real in walk.seen:
        return False
    if store.is_local(url) and walk.root.startswith(f"{real.rstrip('/')}/"):
        reason = f"{url}: link not followed, because its target holds the archive"
        walk.findings.left_out.append(LeftOut(url=url, reason=reason))
        return False
    walk.seen.add(real)
    walk.root = walk.root or real
    return True


def _list(url: str) -> _Listing:
    """Entries of a folder; the error if it cannot be listed; the kind if it is Zarr."""
    try:
        if url.lower().endswith(".zarr"):
            # By name first: a bare array may have thousands of chunks.
            return ZarrSource.kind if not _is_plain_group(url) else store.list_dir(url)
        entries = store.list_dir(url)
        names = {entry.name for entry in entries}
        if names & ZARR_MARKERS and not _is_plain_group(url):
            return ZarrSource.kind
        return ZarrSource.kind if UNFINISHED in names else entries
    except CtrayError as error:
        return error


def _is_plain_group(url: str) -> bool:
    """Whether `url` is a Zarr group but not an image: a folder of arrays and images."""
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
        # Damaged metadata: opening it raises the error.
        return False


def _visit(url: str, path: tuple[str, ...], listing: _Listing, walk: _Walk) -> list[_Folder]:
    """Note what a folder holds; return the folders below it that must be walked."""
    findings = walk.findings
    if isinstance(listing, CtrayError):
        findings.candidates.append(_unreadable(url, path, str(listing)))
        return []
    if isinstance(listing, str):
        findings.candidates.append(Candidate(url=url, path=path, kind=listing))
        return []
    if _is_n5(url, listing):
        findings.others.append(OtherFile(format_name=N5.name, url=url, path=path))
        return []
    below: list[_Folder] = []
    tiffs: list[str] = []
    others: list[str] = []
    for entry in listing:
        inner = (*path, entry.name)
        if entry.name.startswith(".") or entry.name in ("__MACOSX", "lost+found"):
            continue
        refused = _refused(entry, len(inner))
        if refused is not None:
            findings.left_out.append(refused)
        elif entry.is_dir:
            if walk.names.is_excluded(inner[1:]):
                findings.excluded.append("/".join(inner[1:]))
            else:
                below.append((entry.url, inner))
        elif (known := format_of(entry.name)) is not None:
            # Stacks are excluded as a whole, so single names are not checked here.
            (tiffs if known is TIFF else others).append(entry.name)
    if tiffs:
        walk.tiffs.append(_group_tiffs(url, path, tiffs, walk))
    judge_files(url, path, others, walk.names, findings, alone=not tiffs)
    return below


def _refused(entry: store.Entry, depth: int) -> LeftOut | None:
    """Reason not to examine an entry at all; None for most entries."""
    if not entry.name:
        reason = f"{entry.url}: skipped, keys with two slashes in a row; rename them"
        return LeftOut(url=entry.url, reason=reason)
    if entry.special is not None:
        reason = f"{entry.url}: skipped, {entry.special}s are never opened"
        return LeftOut(url=entry.url, reason=reason)
    if entry.is_dir and depth > _MAX_DEPTH:
        reason = f"{entry.url}: skipped, over {_MAX_DEPTH} folders deep"
        return LeftOut(url=entry.url, reason=reason)
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        url = printable(entry.url)
        return LeftOut(url=url, reason=f"{url}: skipped, its name is not UTF-8; rename it")
    return None


def _is_n5(url: str, listing: list[store.Entry]) -> bool:
    names = {entry.name for entry in listing}
    return "attributes.json" in names and (url.lower().endswith(".n5") or "s0" in names)


def _group_tiffs(url: str, path: tuple[str, ...], names: Iterable[str], walk: _Walk) -> TiffFolder:
    """Group the TIFF files of a folder and note the excluded ones; a long stack counts once."""
    stacks = group_numbered(names)
    kept = []
    for stack in stacks:
        if not walk.names.is_excluded((*path[1:], stack.names[0])):
            kept.append(stack)
            continue
        shown = (stack.pattern,) if stack.is_long else stack.names
        walk.findings.excluded.extend("/".join((*path[1:], name)) for name in shown)
    # The URL of the folder means its only stack. With a second stack, a pattern must name it.
    one_stack = len([stack for stack in stacks if stack.is_long]) == 1
    return TiffFolder(url=url, path=path, stacks=tuple(kept), one_stack=one_stack)
