"""What a catalog holds: an entry for each volume, and what is there besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ctray.archive.coverage import Coverage, LeftOut, OtherFormat
from ctray.core.geometry import Triple, VoxelSize
from ctray.formats.source import Kind

Status = Literal["ok", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogEntry:
    """One volume of an archive.

    Parameters
    ----------
    volume_id
        Unique in the catalog, fit for a file name, see `ctray.archive.volume_ids`.
    url
        What `open_source` and `import_volume` take.
    kind
        How it is stored.
    dataset
        Path inside an HDF5 file.
    within
        Folder or prefix that the links of an HDF5 file do not leave; None for other kinds.
    shape, dtype
        Voxels (z, y, x) and their type; None if the volume failed.
    voxel_size
        None where no metadata tell.
    num_bytes
        Bytes of all voxels, uncompressed.
    status, reason
        "ok", or "failed" with one line that says why.
    notes
        Oddities that are no failure, such as slices missing in the numbering.
    """

    volume_id: str
    url: str
    kind: Kind
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
    """Entries in natural order of their paths, and what else is there.

    Parameters
    ----------
    entries
        Volumes, failed ones included.
    coverage
        What is there and is not among the entries.
    """

    entries: tuple[CatalogEntry, ...]
    coverage: Coverage = field(default_factory=Coverage)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Paths that the exclude patterns left out; a stack of slices or a folder counts once."""
        return self.coverage.excluded

    @property
    def without_volume(self) -> tuple[LeftOut, ...]:
        """What was looked at and holds no volume, or was not looked at, with the reasons."""
        return self.coverage.without_volume

    @property
    def other_formats(self) -> tuple[OtherFormat, ...]:
        """Counts of what is there in formats that are not read."""
        return self.coverage.other_formats

    def lines(self) -> list[str]:
        """What whoever relies on the catalog must know: failures, oddities, what is not read."""
        lines = [f"failed {e.volume_id}: {e.reason}" for e in self.failed]
        return [*lines, *self.notes(), *self.coverage.lines()]

    def notes(self, limit: int | None = None) -> list[str]:
        """Oddities of volumes, such as gaps in the numbers of slices, a line each."""
        lines = [f"note on {e.volume_id}: {e.notes}" for e in self.ok if e.notes]
        if limit is None or len(lines) <= limit:
            return lines
        return [
            *lines[:limit],
            f"{len(lines) - limit:,} more volumes with notes; see ctray catalog",
        ]

    @property
    def ok(self) -> tuple[CatalogEntry, ...]:
        """Entries that can be worked on."""
        return tuple(entry for entry in self.entries if entry.status == "ok")

    @property
    def failed(self) -> tuple[CatalogEntry, ...]:
        """Entries that cannot, with their reasons."""
        return tuple(entry for entry in self.entries if entry.status == "failed")

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


__all__ = ["Catalog", "CatalogEntry", "Status"]
