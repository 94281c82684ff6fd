"""Where the volumes of an archive are: folders are walked, names are judged, no voxel is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from ctray.archive.coverage import LeftOut
from ctray.archive.found import Findings, Found, NameFilter, OtherFile
from ctray.archive.other_files import judge_others
from ctray.archive.volume_ids import is_weak
from ctray.core.errors import (
    CtrayError,
    StorageError,
    one_line,
    printable,
)
from ctray.formats.guard import guarded_map
from ctray.formats.hdf5.source import is_hdf5_name
from ctray.formats.names import N5, format_of
from ctray.formats.opening import ZARR_MARKERS
from ctray.formats.slices.stacks import group_numbered
from ctray.formats.source import Kind
from ctray.formats.tiff.discovery import TiffFolder, Verdicts, expand, is_long, judge_names
from ctray.formats.tiff.pages import is_tiff_name
from ctray.storage import store
from ctray.volumes.metadata import UNFINISHED, is_image
from ctray.volumes.zarr_json import as_mapping, read_document


@dataclass(kw_only=True, slots=True)
class _Walk:
    """What a walk has gathered so far; `root` is the archive's folder once it was met.

    `is_full` says that more folders were found than are listed.
    """

    names: NameFilter
    root: str = ""
    is_full: bool = False
    findings: Findings = field(default_factory=Findings)
    tiffs: list[TiffFolder] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


_Folder = tuple[str, tuple[str, ...]]
# Entries of a folder, the error of one that cannot be listed, or what it is as a whole.
_Listing = list[store.Entry] | CtrayError | Kind
# Folders of people are a dozen deep; whatever is deeper was made by a program that went astray.
_MAX_DEPTH = 64
# Stores can make up folders without end, wider and wider.
_MAX_FOLDERS = 200_000


def find_volumes(archive_url: str, names: NameFilter, *, max_workers: int) -> Findings:
    """Everything under `archive_url` that should be a volume, and what else is there.

    Folders are listed level by level, several at once, each once (a link back up ends there).
    A Zarr array or image is one entry and never listed further; a plain Zarr group is a folder.
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
        lambda folder: _expand_tiffs(folder, verdicts), walk.tiffs, max_workers=max_workers
    )
    for folder, found in zip(walk.tiffs, expanded, strict=True):
        if isinstance(found, BaseException):
            reason = f"{folder.url}: {one_line(found) or type(found).__name__}"
            found = [Found(url=folder.url, path=folder.path, kind="tiff-folder", reason=reason)]
        findings.volumes.extend(found)
    findings.volumes = [f for f in findings.volumes if names.is_included(f.path[1:])]
    findings.others = [f for f in findings.others if names.is_included(f.path[1:])]
    return findings


def _within_count(level: list[_Folder], walk: _Walk) -> list[_Folder]:
    """Folders of a level, as many as one archive may have."""
    most = max(0, _MAX_FOLDERS - (len(walk.seen) - len(level)))
    if len(level) > most and not walk.is_full:
        walk.is_full = True
        url = level[most][0]
        reason = f"{url} and others: over {_MAX_FOLDERS:,} folders, not looked into"
        walk.findings.left_out.append(LeftOut(url=url, reason=reason))
    return level[:most]


def root_name(url: str) -> str:
    """Name that stands for the archive, with folders above it while it is as weak as `rec_8bit`."""
    above, _, name = url.rpartition("/")
    while is_weak(name) and above.rpartition("/")[2]:
        above, _, parent = above.rpartition("/")
        name = f"{parent}_{name}" if name else parent
    return name or "archive"


def _is_new(url: str, walk: _Walk) -> bool:
    """Whether a folder is to be listed: not a second time, nor where a link leads back up."""
    # Not `Path.resolve`, which raises where links go in a circle.
    real = os.path.realpath(url) if store.is_local(url) else url
    if real in walk.seen:
        return False
    if store.is_local(url) and walk.root.startswith(f"{real.rstrip('/')}/"):
        reason = f"{url}: a link to a folder that holds the archive, not followed"
        walk.findings.left_out.append(LeftOut(url=url, reason=reason))
        return False
    walk.seen.add(real)
    walk.root = walk.root or real
    return True


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


def _visit(url: str, path: tuple[str, ...], listing: _Listing, walk: _Walk) -> list[_Folder]:
    """Note what a folder holds; the folders below that are to be walked."""
    findings = walk.findings
    if isinstance(listing, CtrayError):
        kind: Kind = "tiff-folder"
        findings.volumes.append(Found(url=url, path=path, kind=kind, reason=str(listing)))
        return []
    if isinstance(listing, str):
        findings.volumes.append(Found(url=url, path=path, kind=listing))
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
            continue
        is_hdf5 = is_hdf5_name(entry.name)
        if not entry.is_dir and is_tiff_name(entry.name):
            tiffs.append(entry.name)  # judged by stacks, also whether they are excluded
        elif not entry.is_dir and not is_hdf5 and format_of(entry.name) is not None:
            others.append(entry.name)
        elif not entry.is_dir and not is_hdf5:
            continue
        elif walk.names.is_excluded(inner[1:]):
            findings.excluded.append("/".join(inner[1:]))
        elif entry.is_dir:
            below.append((entry.url, inner))
        else:
            findings.volumes.append(Found(url=entry.url, path=inner, kind="hdf5"))
    if tiffs:
        walk.tiffs.append(_judge_tiffs(url, path, tiffs, walk))
    judge_others(url, path, others, walk.names, findings, alone=not tiffs)
    return below


def _refused(entry: store.Entry, depth: int) -> LeftOut | None:
    """Why an entry is not even looked at; None for most."""
    if not entry.name:
        reason = f"{entry.url}: keys with two slashes in a row, not looked into; rename them"
        return LeftOut(url=entry.url, reason=reason)
    if entry.special is not None:
        return LeftOut(url=entry.url, reason=f"{entry.url}: a {entry.special}, never opened")
    if entry.is_dir and depth > _MAX_DEPTH:
        reason = f"{entry.url}: over {_MAX_DEPTH} folders deep, not looked into"
        return LeftOut(url=entry.url, reason=reason)
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        url = printable(entry.url)
        return LeftOut(url=url, reason=f"{url}: its name is no UTF-8, rename it")
    return None


def _is_n5(url: str, listing: list[store.Entry]) -> bool:
    names = {entry.name for entry in listing}
    return "attributes.json" in names and (url.lower().endswith(".n5") or "s0" in names)


def _judge_tiffs(url: str, path: tuple[str, ...], names: Iterable[str], walk: _Walk) -> TiffFolder:
    """Group the TIFF files of a folder and set the excluded apart; a stack of them counts once."""
    stacks = group_numbered(names)
    kept = []
    for stack in stacks:
        if not walk.names.is_excluded((*path[1:], stack.names[0])):
            kept.append(stack)
            continue
        shown = (stack.pattern,) if is_long(stack) else stack.names
        walk.findings.excluded.extend("/".join((*path[1:], name)) for name in shown)
    # The folder's URL means its only stack; with a second one, a pattern has to name it.
    one_stack = len([stack for stack in stacks if is_long(stack)]) == 1
    return TiffFolder(url=url, path=path, stacks=tuple(kept), one_stack=one_stack)


def _expand_tiffs(folder: TiffFolder, verdicts: Verdicts) -> list[Found]:
    """Volumes among the TIFF files of a folder: stacks of single pages, and files by themselves."""
    return [Found(**asdict(found)) for found in expand(folder, verdicts)]
