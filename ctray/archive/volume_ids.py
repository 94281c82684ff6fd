"""Ids of the volumes of an archive: readable, safe in file names, unique.

An id is made from the path of its volume, so it stays the same when volumes are added to the
archive. Only volumes that would share an id get longer ones.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from ctray.formats.registry import split_suffix

# Names that say what a file is but not which one; the folders above tell that.
_GENERIC = frozenset(
    (
        *("volume", "vol", "data", "dataset", "recon", "recons", "reconstruction"),
        *("reconstructed", "rec", "image", "images", "img", "stack", "stacks", "slice", "slices"),
        *("tif", "tiff", "tiffs", "tomo", "tomogram", "scan", "raw", "zarr", "ome", "h5", "hdf5"),
        *("nxs", "entry", "exchange", "output", "result", "results", "png", "jp2", "dicom", "edf"),
    )
)
_TYPE = re.compile(r"\d*(bit|bits)|u?int\d+|float\d*")
# File systems allow 255 bytes per name. A run adds ".zarr", a number, and 41 more bytes while it
# writes.
MAX_BYTES = 120
_DIGEST_BYTES = 5


def volume_ids(paths: Sequence[Sequence[str]]) -> list[str]:
    """Ids of volumes, unique also on file systems that ignore case.

    An id is the path below the archive's folder, joined by `_`, without generic names ("volume",
    "recon") and without folders whose name the next name repeats (`mouse/mouse_left.tif` is
    `mouse_left`). It has letters and digits of any script, `.`, `_` and `-`, and at most
    `MAX_BYTES` bytes in UTF-8. A longer id loses its beginning and gets a digest of the whole
    path. Volumes that would share an id also get the generic names, then their suffix, then a
    digest.

    Parameters
    ----------
    paths
        For each volume, the names from the archive's folder (included) down to the volume. The
        archive's name is used if all names below it are weak, such as `rec_8bit`.
    """
    ids = [_short(path) for path in paths]
    for longer in (_with_generic, _with_suffix, _with_digest, _with_number):
        taken = Counter(map(same_file, ids))
        for group in _clashes(ids):
            for i, name in zip(group, longer([paths[i] for i in group]), strict=True):
                if not taken[same_file(name)]:
                    ids[i] = name
    return ids


def same_file(volume_id: str) -> str:
    """Key that is equal for two ids if some file system treats them as one name."""
    return unicodedata.normalize("NFKC", volume_id).casefold()


def _short(path: Sequence[str]) -> str:
    below = [part for part in map(_clean, path[1:]) if part.lower() not in _GENERIC]
    if all(map(is_weak, below)):
        root = _clean(path[0])
        below = [root, *below] if not is_weak(root) else below or [_clean(path[-1])]
    told = [a for a, b in itertools.pairwise(below) if not _repeats(a, b)]
    return _bounded([*told, below[-1]], path)


def is_weak(name: str) -> bool:
    """Whether a name says only what kind of file it is: `recon`, `rec_8bit`."""
    words = [word for word in re.split(r"[_.\s-]+", name.lower()) if word]
    return all(word in _GENERIC or _TYPE.fullmatch(word) for word in words)


def _repeats(folder: str, name: str) -> bool:
    """Whether `name` begins with that of its folder, as a word."""
    rest = name[len(folder) :]
    return name.lower().startswith(folder.lower()) and not rest[:1].isalnum()


def _with_generic(paths: list[Sequence[str]]) -> list[str]:
    """Ids with all names of the paths, except generic names that all paths share."""
    parts = [[_clean(name) for name in path[1:]] for path in paths]
    shared = set.intersection(*({part.lower() for part in some} for some in parts)) & _GENERIC
    kept = [[part for part in some if part.lower() not in shared] for some in parts]
    return [_bounded(some or [_short(path)], path) for some, path in zip(kept, paths, strict=True)]


def _with_suffix(paths: list[Sequence[str]]) -> list[str]:
    suffixes = [split_suffix(path[-1])[1].lstrip(".").replace(".", "_") for path in paths]
    return [
        _bounded([_short(path), *filter(None, [suffix])], path)
        for suffix, path in zip(suffixes, paths, strict=True)
    ]


def _with_digest(paths: list[Sequence[str]]) -> list[str]:
    return [_bounded([_short(path)], path, always=True) for path in paths]


def _with_number(paths: list[Sequence[str]]) -> list[str]:
    """Numbered ids of volumes with one path, such as several in one file."""
    return [_bounded([_short(path), str(n)], path, always=True) for n, path in enumerate(paths, 1)]


def _bounded(parts: Sequence[str], path: Sequence[str], *, always: bool = False) -> str:
    """`parts` joined; with a digest of the path if they are too long, or `always`."""
    whole = "_".join(parts)
    if not always and len(whole.encode()) <= MAX_BYTES:
        return whole
    tail = "_" + _digest(path)
    space = MAX_BYTES - len(tail)
    kept = list(parts)
    while len(kept) > 1 and len("_".join(kept).encode()) > space:
        del kept[0]
    name = "_".join(kept)
    if name.endswith(tail):
        return name
    # The end of a path distinguishes more volumes than its beginning, but both are useful.
    return name.encode()[:space].decode(errors="ignore").rstrip("_.-") + tail


def _digest(path: Sequence[str]) -> str:
    # Without the archive's own name, so that the ids stay when the archive moves.
    text = "/".join(path[1:] or path).encode(errors="surrogateescape")
    return hashlib.blake2s(text, digest_size=_DIGEST_BYTES).hexdigest()


def _clashes(ids: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(ids):
        groups[same_file(name)].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _clean(name: str) -> str:
    """`name` without its suffix: letters, digits and marks of any script, `.`, `_` and `-`."""
    bare = unicodedata.normalize("NFKC", split_suffix(name)[0])
    kept = "".join(c if c in "._-" or unicodedata.category(c)[0] in "LMN" else " " for c in bare)
    return "_".join(kept.split()).strip("_.-") or "unnamed"
