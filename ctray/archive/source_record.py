"""What a run keeps about a source, to detect later changes of its voxels.

The stamp is cheap and is checked before a volume is processed; see `ctray.archive.source_stamp`.
The checksums of the voxels, slab by slab, are computed during the import. They show which slices
have changed, whatever the stamp is.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_SLABS = 256
_LEAST_DEPTH = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord:
    """State of a source when a run read it.

    Parameters
    ----------
    kind, dataset, within
        Arguments of `ctray.formats.opening.open_as`.
    stamp
        See `ctray.archive.source_stamp.stamp_of`.
    slab_depth, slabs
        SHA-256 of the voxels of every `slab_depth` slices along z (fewer in the last slab), in C
        order, little-endian, in the dtype of `VolumeSource.read`. None for Zarr volumes, which
        are not imported.
    """

    kind: str
    stamp: str
    dataset: str | None = None
    within: str | None = None
    slab_depth: int = 0
    slabs: list[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> SourceRecord | None:
        """Inverse of `to_json`; None for any other value."""
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls)})
        except (KeyError, TypeError):
            return None


class SlabChecksums:
    """Computes the checksums of slabs from slices in their order."""

    def __init__(self, num_slices: int) -> None:
        self.depth = slab_depth(num_slices)
        self._left = self.depth
        self._current = hashlib.sha256()
        self._done: list[str] = []

    def update(self, slices: npt.NDArray[Any]) -> None:
        """Add the next slices, (z, y, x)."""
        while len(slices):
            part, slices = slices[: self._left], slices[self._left :]
            self._current.update(voxel_bytes(part))
            self._left -= len(part)
            if self._left == 0:
                self._end_slab()

    def finish(self) -> list[str]:
        """Checksums of all slabs."""
        if self._left < self.depth:
            self._end_slab()
        return self._done

    def _end_slab(self) -> None:
        self._done.append(self._current.hexdigest())
        self._current, self._left = hashlib.sha256(), self.depth


def slab_depth(num_slices: int) -> int:
    """Slices per slab: at least 16, and so many that there are at most 256 slabs."""
    return max(_LEAST_DEPTH, -(-num_slices // _MOST_SLABS))


def voxel_bytes(voxels: npt.NDArray[Any]) -> memoryview:
    """Bytes of voxels for their checksum: C order, little-endian."""
    little = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("<"))
    return little.view(np.uint8).data
