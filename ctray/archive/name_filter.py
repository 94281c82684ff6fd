"""Which names of an archive are included and excluded."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Annotations lie beside the volumes that they belong to, and are as large.
_ANNOTATIONS = ("mask", "masks", "label", "labels", "seg", "segmentation")
_SHAPES = ("{}", "{}.*", "{}[_-]*", "{}[0-9]*", "*[_-]{}", "*[_-]{}.*", "*[_-]{}[_-]*")
DEFAULT_EXCLUDE: tuple[str, ...] = (
    *(shape.format(word) for word in _ANNOTATIONS for shape in _SHAPES),
    *("truth", "truth.*", "*[_-]truth", "*[_-]truth.*", "ground[_-]truth", "annotations"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NameFilter:
    """Glob patterns for names and for paths below the archive; case is ignored.

    Parameters
    ----------
    include
        If any are given, only matches are taken.
    exclude
        Matches are left out; a folder is left out with everything in it.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def is_excluded(self, path: Sequence[str]) -> bool:
        """Whether `path` (names below the archive) is left out."""
        return _matches(path, self.exclude)

    def is_included(self, path: Sequence[str]) -> bool:
        """Whether `path` or a folder above it is included."""
        return not (self.include and path) or any(
            _matches(path[: i + 1], self.include) for i in range(len(path))
        )


def _matches(path: Sequence[str], patterns: Iterable[str]) -> bool:
    """Whether the last name of `path`, or all of it, matches one of `patterns`."""
    if not path:
        return False
    name, whole = path[-1].lower(), "/".join(path).lower()
    return any(
        fnmatch.fnmatchcase(name, pattern.lower()) or fnmatch.fnmatchcase(whole, pattern.lower())
        for pattern in patterns
    )
