"""Which files of a folder form a stack of slices: groups of similar names in natural order."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from ctray.formats.slices.numbers import NUMBER, Choice, Column, choose, columns, without_signs

# Two images can be a pair of anything; three numbered ones are slices.
MIN_FILES = 3
# PCO cameras and Micro-Manager number the parts of a file, except the first.
_PART = re.compile(r"(?P<head>.+)(?P<sign>@|(?<=MMStack)_)(\*|\d+)(?P<tail>(\.ome)?\.\w+)")
_EXTENSION = re.compile(r"\.(tiff?|btf|tf8)$", re.IGNORECASE)

# Names by the texts between their numbers.
_ByText = dict[tuple[str, ...], list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberedStack:
    """Files whose names differ in one number only, or in others that change with it.

    Parameters
    ----------
    names
        File names in the order of that number.
    numbers
        The numbers, ascending; empty if the names hold none (a single file) or only dates.
    pattern
        The name with an asterisk for that number; unique in the folder.
    others
        Further numbers that distinguish this stack from others with the same text before the
        slice number.
    problem
        Why the files have no clear order; None if they have one.
    counted
        What the number probably counts if not slices: "ch", "energy"; else None.
    """

    names: tuple[str, ...]
    pattern: str
    numbers: tuple[float, ...] = ()
    others: str = ""
    problem: str | None = None
    counted: str | None = None

    @property
    def stem(self) -> str:
        """Text of the names before the number, without separators at its end."""
        if "*" not in self.pattern:
            return self.pattern.rpartition(".")[0]
        return self.pattern.partition("*")[0].rstrip("_-. @") + self.others

    def _counts(self) -> str | None:
        if self.counted is None:
            return None
        return (
            f"the files are numbered by {self.counted!r}, which may not count slices; they are "
            "read as slices of one volume"
        )

    @property
    def is_long(self) -> bool:
        """Whether there are enough files for a volume with one slice per file."""
        return len(self.names) >= MIN_FILES

    @property
    def is_split(self) -> bool:
        """Whether the names show one recording that a program split into several files."""
        return len(self.names) > 1 and _PART.fullmatch(self.pattern) is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """Oddities of the numbering, such as gaps and duplicates."""
        notes = (self._gaps(), self._doubles(), self._changes(), self._counts())
        return tuple(note for note in notes if note)

    def _gaps(self) -> str | None:
        if any(number != int(number) for number in self.numbers):
            return self._gaps_of_positions()
        numbers = [int(number) for number in self.numbers]
        steps = [b - a for a, b in pairwise(numbers) if b > a]
        if not steps:
            return None
        # A stack of every second slice was chosen so; it has no gaps.
        step = math.gcd(*steps)
        if len([s for s in steps if s == step]) * 2 < len(steps):
            step = 1
        gaps = [(a + step, b - step) for a, b in pairwise(numbers) if b - a > step]
        missing = sum((b - a) // step + 1 for a, b in gaps)
        shown = [str(a) if a == b else f"{a} to {b}" for a, b in gaps]
        return _missing(missing, shown)

    def _gaps_of_positions(self) -> str | None:
        """Gaps between decimal numbers, which are rounded: over one and a half steps."""
        step = median(b - a for a, b in pairwise(self.numbers))
        gaps = [(a, b) for a, b in pairwise(self.numbers) if b - a > 1.5 * step > 0]
        missing = sum(round((b - a) / step) - 1 for a, b in gaps)
        return _missing(missing, [f"between {a:g} and {b:g}" for a, b in gaps])

    def _doubles(self) -> str | None:
        doubles = len(self.numbers) - len(set(self.numbers))
        return f"{doubles} slice numbers occur twice" if doubles else None

    def _changes(self) -> str | None:
        if self.pattern.count("*") < 2:
            return None
        return f"several numbers in the names change; slices are in the order of {self.pattern}"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `slice_10` after `slice_9`."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in NUMBER.split(name)
        if part
    )


def group_numbered(names: Iterable[str]) -> list[NumberedStack]:
    """Group file names into stacks, by the text between their numbers.

    If several numbers vary, one of them counts slices. The others separate stacks
    (`t1_z0001.tif`) or change with the slice (`0001_z12.5mm.tif`). Files without a clear order
    form a stack with a `problem`.
    """
    by_text: _ByText = defaultdict(list)
    for name in names:
        by_text[tuple(NUMBER.split(name)[::2])].append(name)
    stacks: list[NumberedStack] = []
    for same_text in _same_but_for_extension(_same_but_for_sign(by_text)):
        stacks.extend(_split_by_number(same_text))
    return sorted(_with_first_parts(stacks), key=lambda stack: natural_key(stack.names[0]))


def _same_but_for_sign(by_text: _ByText) -> _ByText:
    """Join names with positions below and above zero: `z-0.5mm` and `z0.5mm`."""
    joined: _ByText = defaultdict(list)
    for texts, names in by_text.items():
        joined[without_signs(texts)].extend(names)
    return joined


def _same_but_for_extension(by_text: _ByText) -> list[list[str]]:
    """Join groups that differ only in `.tif`, `.TIF` or `.tiff` and share no number."""
    joined: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for texts, names in by_text.items():
        joined[(*texts[:-1], _EXTENSION.sub(".tif", texts[-1]))].append(names)
    result: list[list[str]] = []
    for groups in joined.values():
        every = [name for names in groups for name in names]
        numbers = {_EXTENSION.sub("", name) for name in every}
        result.extend([every] if len(numbers) == len(every) else groups)
    return result


def _with_first_parts(stacks: Sequence[NumberedStack]) -> list[NumberedStack]:
    """Put `scan.tif` before `scan@0001.tif`, as cameras number the parts of a file."""
    result = {stack.pattern: stack for stack in stacks}
    for stack in stacks:
        match = _PART.fullmatch(stack.pattern)
        first = result.get(match["head"] + match["tail"]) if match else None
        if match is None or first is None or len(first.names) != 1:
            continue
        pattern = f"{match['head']}{match['sign']}*{match['tail']}"
        del result[first.pattern], result[stack.pattern]
        result[pattern] = replace(
            stack,
            names=(*first.names, *stack.names),
            numbers=(0, *stack.numbers),
            pattern=pattern,
        )
    return list(result.values())


def _split_by_number(names: list[str]) -> list[NumberedStack]:
    """Stacks among names that share their text."""
    found = columns(names)
    choice = choose(found)
    if choice.problem is not None:
        ordered = tuple(sorted(names, key=natural_key))
        every = [c for c in found if c.distinct > 1]
        return [
            NumberedStack(
                names=ordered, pattern=_pattern(ordered[0], every), problem=choice.problem
            )
        ]
    if choice.slices is None:
        # Names that differ only in leading zeros, or a single file.
        last = found[-1].values if found else ()
        return [
            NumberedStack(names=(name,), pattern=name, numbers=last[i : i + 1])
            for i, name in sorted(enumerate(names), key=lambda item: item[1])
        ]
    return _by_choice(names, found, choice, choice.slices)


def _by_choice(
    names: list[str], found: Sequence[Column], choice: Choice, lead: Column
) -> list[NumberedStack]:
    groups: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for i in range(len(names)):
        groups[tuple(column.values[i] for column in choice.apart)].append(i)
    # Numbers that change with the slices are not part of the pattern.
    free = [c for c in found if c.distinct > 1 and c not in choice.apart]
    stacks = []
    for _, group in sorted(groups.items()):
        ordered = sorted(group, key=lambda i: (lead.values[i], names[i]))
        first = names[ordered[0]]
        stacks.append(
            NumberedStack(
                names=tuple(names[i] for i in ordered),
                pattern=_pattern(first, free) if len(ordered) > 1 else first,
                numbers=() if lead.kind == "time" else tuple(lead.values[i] for i in ordered),
                others=_others(first, choice.apart, lead),
                counted=lead.counted,
            )
        )
    return stacks


def _others(name: str, apart: Sequence[Column], lead: Column) -> str:
    """Numbers behind the slice number that distinguish stacks, with their words."""
    parts = NUMBER.split(name)
    behind = [column for column in apart if column.first > lead.last]
    return "".join(
        f"_{column.word}{''.join(parts[2 * column.first + 1 : 2 * column.last + 2])}"
        for column in behind
    )


def _pattern(name: str, free: Sequence[Column]) -> str:
    """`name` with an asterisk for each number of `free`."""
    parts = NUMBER.split(name)
    for column in reversed(free):
        parts[2 * column.first + 1 : 2 * column.last + 2] = ["*"]
    return "".join(parts)


def _missing(count: int, shown: Sequence[str]) -> str | None:
    if not count:
        return None
    more = ", ..." if len(shown) > 3 else ""
    return f"{count} slices missing in the numbering ({', '.join(shown[:3])}{more})"
