"""What a walk through an archive looks for, and what it finds."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ctray.archive.coverage import LeftOut
from ctray.formats.source import Kind


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
    no_volume
        Why it is no volume, though nothing is wrong with it: projections of a raw scan.
    note
        What its entry should tell.
    """

    url: str
    path: tuple[str, ...]
    kind: Kind
    reason: str | None = None
    no_volume: str | None = None
    note: str | None = None


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
class OtherFile:
    """A file, or numbered slices, of a format that is not read; `bare` if a header may name it."""

    format_name: str
    url: str
    path: tuple[str, ...]
    bare: bool = False


@dataclass(kw_only=True, slots=True)
class Findings:
    """What a walk has gathered.

    Parameters
    ----------
    volumes
        What should be a volume.
    others
        Files of formats that are not read.
    left_out
        What was not looked at, such as named pipes.
    excluded
        Paths that the exclude patterns left out.
    """

    volumes: list[Found] = field(default_factory=list)
    others: list[OtherFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)


def _matches(path: Sequence[str], patterns: Iterable[str]) -> bool:
    """Whether the last name of `path`, or all of it, matches one of `patterns`."""
    if not path:
        return False
    name, whole = path[-1].lower(), "/".join(path).lower()
    return any(
        fnmatch.fnmatchcase(name, pattern.lower()) or fnmatch.fnmatchcase(whole, pattern.lower())
        for pattern in patterns
    )
