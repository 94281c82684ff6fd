"""Which files of a folder form a stack of slices: grouping by name and natural order."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberedStack:
    """Files whose names differ in one number alone.

    Parameters
    ----------
    names
        File names in the order of that number.
    numbers
        The numbers, ascending; empty where the names hold none (a lone file).
    pattern
        The name with an asterisk for that number; tells the stacks of a folder apart.
    """

    names: tuple[str, ...]
    pattern: str
    numbers: tuple[int, ...] = ()

    @property
    def stem(self) -> str:
        """What the names share before the number, without separators at its end."""
        if "*" not in self.pattern:
            return self.pattern.rpartition(".")[0]
        return self.pattern.partition("*")[0].rstrip("_-. ")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the numbering: gaps and doubles."""
        return tuple(note for note in (self._gaps(), self._doubles()) if note)

    def _gaps(self) -> str | None:
        steps = [b - a for a, b in zip(self.numbers, self.numbers[1:], strict=False) if b > a]
        if not steps:
            return None
        # Every second slice kept is a choice, not a gap.
        step = math.gcd(*steps)
        if len([s for s in steps if s == step]) * 2 < len(steps):
            step = 1
        gaps = [
            (a + step, b - step)
            for a, b in zip(self.numbers, self.numbers[1:], strict=False)
            if b - a > step
        ]
        if not gaps:
            return None
        missing = sum((b - a) // step + 1 for a, b in gaps)
        shown = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in gaps[:3])
        more = ", ..." if len(gaps) > 3 else ""
        return f"{missing} slices missing in the numbering ({shown}{more})"

    def _doubles(self) -> str | None:
        doubles = len(self.numbers) - len(set(self.numbers))
        return f"{doubles} slice numbers occur twice" if doubles else None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `slice_10` after `slice_9`."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in _NUMBER.split(name)
        if part
    )


def group_numbered(names: Iterable[str]) -> list[NumberedStack]:
    """Group file names into stacks, by what is the same in them besides one number.

    Names with the same text between their numbers belong together. Where several numbers
    vary, the last one counts slices and the others tell stacks apart (`t1_z0001.tif`).
    """
    by_text: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        by_text[tuple(_NUMBER.split(name)[::2])].append(name)
    stacks: list[NumberedStack] = []
    for same_text in by_text.values():
        stacks.extend(_split_by_number(same_text))
    return sorted(stacks, key=lambda stack: natural_key(stack.names[0]))


def _split_by_number(names: list[str]) -> list[NumberedStack]:
    """Stacks among names that share their text."""
    numbers = {name: tuple(int(n) for n in _NUMBER.split(name)[1::2]) for name in names}
    width = len(numbers[names[0]])
    varying = [i for i in range(width) if len({n[i] for n in numbers.values()}) > 1]
    if not varying:
        # The same but for leading zeros, or a single file.
        return [
            NumberedStack(names=(name,), pattern=name, numbers=numbers[name][-1:])
            for name in sorted(names)
        ]
    slice_at = varying[-1]
    by_rest: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in names:
        values = numbers[name]
        by_rest[values[:slice_at] + values[slice_at + 1 :]].append(name)
    return [
        NumberedStack(
            names=tuple(ordered),
            pattern=_pattern(ordered[0], slice_at) if len(ordered) > 1 else ordered[0],
            numbers=tuple(numbers[name][slice_at] for name in ordered),
        )
        for _, group in sorted(by_rest.items())
        for ordered in [sorted(group, key=lambda name: (numbers[name][slice_at], name))]
    ]


def _pattern(name: str, slice_at: int) -> str:
    """`name` with an asterisk for its number at position `slice_at`."""
    parts = _NUMBER.split(name)
    parts[2 * slice_at + 1] = "*"
    return "".join(parts)
