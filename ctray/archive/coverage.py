"""What an archive holds besides the volumes of its catalog, and the lines that report it.

Nobody who reads a catalog may believe that it lists everything in the archive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ctray.core.errors import printable

# Items of a list that are shown, and items that fit into the metadata of a file.
_SHOWN = 3
_KEPT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Something in the archive that is not in the catalog.

    Parameters
    ----------
    url
        The file or folder.
    reason
        One line that says why it is not a volume.
    """

    url: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherFormat:
    """Files of a format that is not read.

    Parameters
    ----------
    name
        The format, such as `Imaris (.ims)`.
    count
        Number of files; a folder of numbered slices counts once.
    example
        URL of the first file.
    """

    name: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Everything in an archive that its catalog does not list as a volume.

    Parameters
    ----------
    excluded
        Paths below the archive that match the exclude patterns; a stack of slices or a folder
        counts once.
    exclude_asked
        Whether the user gave these patterns; else they are the default for masks and labels.
    without_volume
        Readable files without a volume (single 2D images, HDF5 files without 3D data), special
        files such as pipes, and folders that are too deep.
    other_formats
        Files of formats that are not read, the most frequent format first.
    num_excluded, num_without_volume
        Total numbers; a catalog file names the first thousand.
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
        """Report, one item per line: other formats, files without a volume, excluded paths."""
        return [*self._format_lines(), *self._without_lines(), *self._excluded_lines()]

    def counts(self) -> dict[str, Any]:
        """Number of items of each group; other formats by name."""
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
        return [f"not read, other formats: {shown}; first: {first}"]

    def _without_lines(self) -> list[str]:
        count = self.num_without_volume
        if not count:
            return []
        named = self.without_volume[:_SHOWN]
        lines = [f"{count:,} without a volume:"]
        lines += [f"  {printable(left.reason)}" for left in named]
        if count > len(named):
            lines.append(f"  and {count - len(named):,} more; ctray catalog --json lists them")
        return lines

    def _excluded_lines(self) -> list[str]:
        count = self.num_excluded
        if not count:
            return []
        example = printable(self.excluded[0]) if self.excluded else ""
        if self.exclude_asked:
            return [f"{count:,} excluded by the given patterns, such as {example}"]
        return [
            f"{count:,} skipped because of names like masks or labels, such as {example}; "
            "--no-exclude includes them, --exclude GLOB skips others"
        ]

    def to_json(self, limit: int | None = _KEPT) -> dict[str, Any]:
        """Plain values; long lists are cut to `limit` items."""
        values = asdict(self)
        values["excluded"] = list(self.excluded[:limit])
        values["without_volume"] = [asdict(left) for left in self.without_volume[:limit]]
        values["other_formats"] = [asdict(found) for found in self.other_formats]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Coverage:
        """Inverse of `to_json`."""
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
