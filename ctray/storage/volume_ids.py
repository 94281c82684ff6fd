"""Names for the volumes of an archive: short, safe in file names, each given once."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

# Names that say what a file is, not which; the folder above says that.
_GENERIC = frozenset(
    (
        *("volume", "vol", "data", "dataset", "recon", "recons", "reconstruction"),
        *("reconstructed", "rec", "image", "images", "img", "stack", "stacks", "slice", "slices"),
        *("tif", "tiff", "tiffs", "tomo", "tomogram", "scan", "raw", "zarr", "ome", "h5", "hdf5"),
        *("nxs", "entry", "exchange", "output", "result", "results"),
    )
)
_SUFFIX = re.compile(r"(\.ome)?\.(zarr|tiff?|btf|tf8|h5|hdf5?|he5|nxs?|nexus)$", re.IGNORECASE)


def volume_ids(paths: Sequence[Sequence[str]]) -> list[str]:
    """One id a volume, unique without regard to case, of characters `A-Za-z0-9._-` alone.

    A volume is called by its own name, or by the next name above that is not generic ("volume",
    "recon"). Of volumes that would share an id, those in one folder get the generic names
    behind it too, those in different folders the folders above in front.

    Parameters
    ----------
    paths
        For each volume the names from the archive's folder (included) down to its own.
    """
    parts = [[_clean(name) for name in path] for path in paths]
    names = [_Name(part) for part in parts]
    while True:
        clashes = _clashes([name.text for name in names])
        grown = [names[i].grow([names[j] for j in group]) for group in clashes for i in group]
        if not any(grown):
            break
        for group in clashes:
            for i in group:
                names[i].settle()
    ids = [name.text for name in names]
    for group in clashes:
        _tell_apart(ids, group, paths)
    return ids


class _Name:
    """A name that can grow: folders in front, generic names behind."""

    def __init__(self, parts: list[str]) -> None:
        self._parts = parts
        telling = [i for i, part in enumerate(parts) if part.lower() not in _GENERIC]
        self._at = telling[-1] if telling else len(parts) - 1
        self._start, self._stop = self._at, self._at + 1
        self._next = (self._start, self._stop)

    @property
    def text(self) -> str:
        return "_".join(self._parts[self._start : self._stop])

    @property
    def home(self) -> list[str]:
        return self._parts[: self._at + 1]

    def grow(self, clashing: Sequence[_Name]) -> bool:
        """Plan one step away from `clashing`; False where no step is left."""
        others = [name for name in clashing if name is not self]
        start, stop = self._start, self._stop
        if any(name.home == self.home for name in others):
            stop = len(self._parts)
        if any(name.home != self.home for name in others):
            start = max(0, start - 1)
        self._next = (start, stop)
        return self._next != (self._start, self._stop)

    def settle(self) -> None:
        self._start, self._stop = self._next


def _clashes(ids: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(ids):
        # Some file systems know no case.
        groups[name.lower()].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _tell_apart(ids: list[str], group: Sequence[int], paths: Sequence[Sequence[str]]) -> None:
    """Give volumes that differ in nothing else their suffix, or a number in order of path."""
    taken = {name.lower() for name in ids}
    for number, i in enumerate(sorted(group, key=lambda i: list(paths[i])), start=1):
        suffix = _SUFFIX.search(paths[i][-1])
        name = f"{ids[i]}_{suffix[2].lower()}" if suffix else f"{ids[i]}_{number}"
        while name.lower() in taken:
            number += 1
            name = f"{ids[i]}_{number}"
        taken.add(name.lower())
        ids[i] = name


def _clean(name: str) -> str:
    """`name` without its suffix, in characters that every file system and URL takes."""
    bare = _SUFFIX.sub("", name)
    ascii_only = unicodedata.normalize("NFKD", bare).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", ascii_only).strip("_.-")
    return safe or "unnamed"
