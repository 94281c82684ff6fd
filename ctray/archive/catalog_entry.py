"""`Catalog`: an entry for each volume of an archive, and everything else in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ctray.archive.coverage import Coverage, LeftOut, OtherFormat
from ctray.core.geometry import Triple, VoxelSize

Status = Literal["ok", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogEntry:
    """One volume of an archive.

    Parameters
    ----------
    volume_id
        Unique in the catalog and fit for a file name; see `ctray.archive.volume_ids`.
    url
        Argument for `open_source` and `import_volume`.
    kind
        Kind of its reader: a `VolumeSource.kind`.
    dataset
        Path inside an HDF5 file.
    within
        Folder or prefix that the links of an HDF5 file must not leave; None for other kinds.
    shape, dtype
        Voxels (z, y, x) and their type; None if the volume failed.
    voxel_size
        None if no metadata state it.
    num_bytes
        Bytes of all voxels, uncompressed.
    status, reason
        "ok", or "failed" with the reason in one line.
    notes
        Oddities that are no failure, such as slices missing in the numbering.
    """

    volume_id: str
    url: str
    kind: str
    dataset: str | None = None
    within: str | None = None
    shape: Triple | None = None
    dtype: str | None = None
    voxel_size: VoxelSize | None = None
    num_bytes: int | None = None
    status: Status = "ok"
    reason: str | None = None
    notes: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """Entries in natural order of their paths, and everything else in the archive.

    Parameters
    ----------
    entries
        Volumes, including failed ones.
    coverage
        Everything that is not among the entries.
    """

    entries: tuple[CatalogEntry, ...]
    coverage: Coverage = field(default_factory=Coverage)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Paths that match the exclude patterns; a stack of slices or a folder counts once."""
        return self.coverage.excluded

    @property
    def without_volume(self) -> tuple[LeftOut, ...]:
        """Files and folders without a volume, and those that were skipped, with the reasons."""
        return self.coverage.without_volume

    @property
    def other_formats(self) -> tuple[OtherFormat, ...]:
        """Number of files in formats that are not read."""
        return self.coverage.other_formats

    def lines(self) -> list[str]:
        """Report for the user, one item per line: failures, oddities, and what is not read."""
        lines = [f"failed {e.volume_id}: {e.reason}" for e in self.failed]
        return [*lines, *self.notes(), *self.coverage.lines()]

    def notes(self, limit: int | None = None) -> list[str]:
        """Oddities of volumes, such as gaps in the slice numbers, one volume per line."""
        lines = [f"note on {e.volume_id}: {e.notes}" for e in self.ok if e.notes]
        if limit is None or len(lines) <= limit:
            return lines
        return [
            *lines[:limit],
            f"{len(lines) - limit:,} more volumes with notes; see ctray catalog",
        ]

    @property
    def ok(self) -> tuple[CatalogEntry, ...]:
        """Entries of usable volumes."""
        return tuple(entry for entry in self.entries if entry.status == "ok")

    @property
    def failed(self) -> tuple[CatalogEntry, ...]:
        """Entries of unusable volumes, with their reasons."""
        return tuple(entry for entry in self.entries if entry.status == "failed")

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
