"""Volumes that are parts of others, and so are not volumes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ctray.core.errors import InvalidVolumeError
from ctray.formats.source import VolumeSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a candidate for a volume consists of, by names that no path or link changes.

    Parameters
    ----------
    voxels_ids
        Stored voxels in its own file that are its volume; several where the choice is open.
    part_ids
        Stored voxels in other files that it is put together from.
    """

    voxels_ids: tuple[str, ...] = ()
    part_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: VolumeSource | InvalidVolumeError) -> Self:
        """Parts of an open source, or of what could not be opened."""
        return cls(voxels_ids=found.voxels_ids, part_ids=found.part_ids)


def parts_of_others(candidates: Mapping[str, Parts]) -> frozenset[str]:
    """URLs of the candidates all of whose voxels are parts of others.

    Where two are parts of each other, the one whose URL comes later is taken for the part.
    """
    taken: set[str] = set()
    for url in sorted(candidates):
        own = set(candidates[url].voxels_ids)
        # What a part takes is its whole's already.
        if not own or not own <= taken:
            taken |= set(candidates[url].part_ids) - own
    owned = {url: set(parts.voxels_ids) for url, parts in candidates.items()}
    return frozenset(url for url, own in owned.items() if own and own <= taken)


__all__ = ["Parts", "parts_of_others"]
