"""What an archive holds beside the volumes of its catalog, and how that is told.

Whoever reads a catalog must not think that it names all that is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ctray.core.errors import printable

# Lists are told in a few lines and kept up to a length that a file's metadata bear.
_SHOWN = 3
_KEPT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Something that is there and is not in the catalog.

    Parameters
    ----------
    url
        What it is.
    reason
        One line that says why it is no volume, such as what a file holds in place of one.
    """

    url: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherFormat:
    """Files of a format that is not read.

    Parameters
    ----------
    name
        Of the format, such as `Imaris (.ims)`.
    count
        Files; a folder of numbered slices counts once.
    example
        URL of the first.
    """

    name: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What a catalog does not hold of its archive.

    Parameters
    ----------
    excluded
        Paths below the archive that the exclude patterns left out; a stack of slices or a folder
        counts once.
    exclude_asked
        Whether a person gave these patterns; else they are those for masks and labels.
    without_volume
        Readable files that hold no volume (single 2D images, HDF5 files without 3D data), special
        files such as pipes, and folders that are too deep.
    other_formats
        Files of other formats, the most frequent first.
    num_excluded, num_without_volume
        How many there are; a catalog that was written to a file names the first thousand.
    """

    excluded: tuple[str, ...] = ()
    exclude_asked: bool = False
    without_volume: tuple[LeftOut, ...] = ()
    other_formats: tuple[OtherFormat, ...] = ()
    num_excluded: int = 0
    num_without_volume: int = 0

    def __post_init__(self) -> None:
        for name in ("excluded", "without_volume"):
            count = max(getattr(self, f"num_{name}"), len(getattr(self, name)))
            object.__setattr__(self, f"num_{name}", count)

    def lines(self) -> list[str]:
        """What is there and not read, a line each: other formats, no volume, excluded."""
        return [*self._format_lines(), *self._without_lines(), *self._excluded_lines()]

    def counts(self) -> dict[str, Any]:
        """How many there are of each, other formats by name."""
        return {
            "excluded": self.num_excluded,
            "without_volume": self.num_without_volume,
            "other_formats": {found.name: found.count for found in self.other_formats},
        }

    def _format_lines(self) -> list[str]:
        if not self.other_formats:
            return []
        shown = ", ".join(f"{found.count:,} {found.name}" for found in self.other_formats)
        first = printable(self.other_formats[0].example)
        return [f"not read, in other formats: {shown}; the first: {first}"]

    def _without_lines(self) -> list[str]:
        count = self.num_without_volume
        if not count:
            return []
        named = self.without_volume[:_SHOWN]
        lines = [f"{count:,} looked at and not taken:"]
        lines += [f"  {printable(left.reason)}" for left in named]
        if count > len(named):
            lines.append(f"  and {count - len(named):,} more; ctray catalog --json names them")
        return lines

    def _excluded_lines(self) -> list[str]:
        count = self.num_excluded
        if not count:
            return []
        example = printable(self.excluded[0]) if self.excluded else ""
        if self.exclude_asked:
            return [f"{count:,} excluded by the patterns that were given, such as {example}"]
        return [
            f"{count:,} skipped as masks or labels by name, such as {example}; --no-exclude takes "
            "them, --exclude GLOB skips others"
        ]

    def to_json(self, limit: int | None = _KEPT) -> dict[str, Any]:
        """Plain values; of long lists the first `limit`."""
        values = asdict(self)
        values["excluded"] = list(self.excluded[:limit])
        values["without_volume"] = [asdict(left) for left in self.without_volume[:limit]]
        values["other_formats"] = [asdict(found) for found in self.other_formats]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Coverage:
        """Take what `to_json` gave."""
        return cls(
            excluded=tuple(values["excluded"]),
            exclude_asked=bool(values["exclude_asked"]),
            without_volume=tuple(LeftOut(**left) for left in values["without_volume"]),
            other_formats=tuple(OtherFormat(**found) for found in values["other_formats"]),
            num_excluded=int(values["num_excluded"]),
            num_without_volume=int(values["num_without_volume"]),
        )


def count_formats(found: Iterable[tuple[str, str]]) -> tuple[OtherFormat, ...]:
    """Count (name of the format, URL) pairs by format."""
    pairs = sorted(found)
    counts = Counter(name for name, _ in pairs)
    first = dict(reversed(pairs))
    return tuple(
        OtherFormat(name=name, count=count, example=first[name])
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


__all__ = ["Coverage", "LeftOut", "OtherFormat", "count_formats"]
