"""What a walk through an archive finds: candidates for volumes, and everything else."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctray.archive.coverage import LeftOut


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Something that should be a volume.

    Parameters
    ----------
    url
        Argument for `ctray.formats.opening.open_as`.
    path
        Names from the archive's folder (included) down to the candidate.
    kind
        Kind of the reader, judged by names only.
    reason
        Why it cannot be opened at all; None if it may be opened.
    no_volume
        Why it is not a volume although nothing is wrong with it, such as projections.
    note
        Note for its catalog entry.
    """

    url: str
    path: tuple[str, ...]
    kind: str
    reason: str | None = None
    no_volume: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherFile:
    """A file or a stack of files that is not read.

    Parameters
    ----------
    format_name, url, path
        Format as users see it, and the place as for a `Candidate`.
    needs_header
        Whether the header of a volume may name the file.
    """

    format_name: str
    url: str
    path: tuple[str, ...]
    needs_header: bool = False


@dataclass(kw_only=True, slots=True)
class Findings:
    """Everything that a walk has found.

    Parameters
    ----------
    candidates
        What should be a volume.
    others
        Files of formats that are not read.
    left_out
        What was not examined, such as named pipes.
    excluded
        Paths that match the exclude patterns.
    """

    candidates: list[Candidate] = field(default_factory=list)
    others: list[OtherFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
