"""Which of several numbers in file names counts slices, and which ones separate stacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Literal

NUMBER = re.compile(r"(\d+)")
# 2023-05-11T01:30:05.123 and shorter forms, with any of the usual separators or none.
_TIME = re.compile(
    r"(19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])"
    r"([-_ T.]{0,2}([01]\d|2[0-3])([-_.:hH]?[0-5]\d([-_.:mM]?[0-5]\d([.,_-]?\d{1,6})?)?)?)?"
)
_DECIMAL = re.compile(r"\d+[.,]\d+")
_UNIT = re.compile(r"^ ?_?(mm|um|µm|μm|nm|cm|kev|ev|deg)(?![a-z])", re.IGNORECASE)
_ENERGY = re.compile(r"^ ?_?(kev|ev)(?![a-z])", re.IGNORECASE)
_WORD = re.compile(r"([A-Za-zµμ]+)[-_ =]*$")

_SLICE_WORDS = frozenset(
    (
        *("z", "slice", "slices", "sl", "slc", "zslice", "plane", "layer", "section", "sec"),
        *("depth",),
    )
)
_OTHER_WORDS = frozenset(
    (
        *("c", "ch", "chan", "channel", "e", "en", "energy", "ev", "kev", "w", "wave"),
        *("wavelength", "lambda", "t", "tp", "time", "timepoint", "phase", "angle", "theta"),
        *("rep", "repeat"),
    )
)
_TILE_WORDS = frozenset(("x", "y", "row", "col", "column", "tile"))
# Two files form no stack. Fewer files than the second number are never refused.
_MIN_STACK, _MIN_REFUSED = 3, 6

TokenKind = Literal["count", "time", "decimal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One number of the names, in every name.

    Parameters
    ----------
    values
        The number in each name.
    word
        Letters in front of it, in lower case.
    kind
        A count, a date or time of day, or a position with a unit of length.
    is_energy
        Whether the unit behind it is an energy.
    first, last
        First and last of its digit groups in the name, from 0.
    """

    values: tuple[float, ...]
    word: str
    kind: TokenKind
    is_energy: bool
    first: int
    last: int

    @property
    def distinct(self) -> int:
        """Number of different values."""
        return len(set(self.values))

    @property
    def counted(self) -> str | None:
        """What the number counts, if its word shows that it does not count slices."""
        if self.is_energy:
            return "energy"
        # One letter proves little: "t" may be a tomogram.
        return self.word if self.word in _OTHER_WORDS and len(self.word) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The column that counts slices and those that separate stacks, or why this is unclear."""

    slices: Column | None = None
    apart: tuple[Column, ...] = ()
    problem: str | None = None


def columns(names: Sequence[str]) -> list[Column]:
    """Find the numbers of names that have the same text between their digits."""
    parts = [NUMBER.split(name) for name in names]
    width = len(parts[0]) // 2
    found: list[Column] = []
    at = 0
    while at < width:
        last, kind = _widest(parts, at, width)
        texts = ["".join(part[2 * at + 1 : 2 * last + 2]) for part in parts]
        # A dash before only some of the numbers is a minus sign.
        dashes = [part[2 * at].endswith("-") for part in parts]
        signs = [-1 if dash and not all(dashes) else 1 for dash in dashes]
        word = "" if at and _UNIT.match(parts[0][2 * at]) else _word(parts[0][2 * at])
        found.append(
            Column(
                values=tuple(
                    sign * _value(text, kind) for sign, text in zip(signs, texts, strict=True)
                ),
                word=word,
                kind=kind,
                is_energy=bool(_ENERGY.match(parts[0][2 * last + 2])),
                first=at,
                last=last,
            )
        )
        at = last + 1
    return found


def without_signs(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts between the numbers of a name, without the minus signs of positions."""
    bare = list(texts)
    for i, text in enumerate(texts[:-1]):
        # A position is called z, or a unit follows it or its decimals.
        behind = [t for t in (texts[i + 1], *(texts[i + 2 : i + 3])) if _UNIT.match(t)]
        if text.endswith("-") and (_word(text) in _SLICE_WORDS or behind):
            bare[i] = text[:-1]
    return tuple(bare)


def choose(found: Sequence[Column]) -> Choice:
    """Decide which of the varying numbers counts slices.

    A number counts slices if it differs in all names and rises without large gaps; numbers behind
    it (a position, a time of day) change with it. Otherwise the numbers form a grid. Then the
    words before them decide, or else the last number if it has most values.
    """
    varying = [column for column in found if column.distinct > 1]
    if len(varying) < 2:
        return Choice(slices=varying[0] if varying else None)
    count = len(varying[0].values)
    unique = [column for column in varying if column.distinct == count]
    counters = [c for c in unique if c.kind == "count" and _is_dense(c.values) and not _is_other(c)]
    if counters:
        return _along(counters, varying)
    # Dates and positions that differ in all names add nothing to the order.
    grid = [column for column in varying if column not in unique]
    if not grid or len(set(zip(*(c.values for c in grid), strict=True))) < count:
        if not unique:
            return Choice(problem=_problem(varying, "two names hold the same numbers"))
        return _along(unique, varying)
    return _in_grid(grid)


def _along(counters: Sequence[Column], varying: Sequence[Column]) -> Choice:
    """One number counts slices; other varying numbers change with it or separate stacks."""
    lead = next((c for c in counters if c.word in _SLICE_WORDS), counters[0])
    order = _order(lead)
    for other in counters:
        if _order(other) not in (order, order[::-1]):
            return Choice(problem=_problem([lead, other], "they give different orders"))
    rest = tuple(c for c in varying if c not in counters and c.distinct < len(c.values))
    apart = tuple(c for c in rest if c.first < lead.first or _is_other(c))
    if apart:
        sizes = Counter(zip(*(c.values for c in apart), strict=True))
        if min(sizes.values()) < _MIN_STACK:
            apart = ()
    return Choice(slices=lead, apart=apart)


def _in_grid(grid: Sequence[Column]) -> Choice:
    candidates = [column for column in grid if not _is_other(column)]
    hinted = [column for column in candidates if column.word in _SLICE_WORDS]
    if len(hinted) == 1:
        lead = hinted[0]
    elif all(column.word in _TILE_WORDS for column in candidates):
        return Choice(problem=_problem(grid, "none of them is a slice number"))
    else:
        lead = candidates[-1]
        if lead.distinct < max(column.distinct for column in candidates):
            return Choice(problem=_problem(candidates, "each of them may be the slice number"))
    apart = tuple(column for column in grid if column is not lead)
    sizes = Counter(zip(*(c.values for c in apart), strict=True))
    files = len(lead.values)
    lone = sum(n for n in sizes.values() if n < _MIN_STACK)
    if files >= _MIN_REFUSED and 2 * lone > files:
        return Choice(problem=_problem(grid, "they do not form stacks"))
    return Choice(slices=lead, apart=apart)


def _widest(parts: Sequence[list[str]], at: int, width: int) -> tuple[int, TokenKind]:
    """Last digit group of the number that starts at group `at`, in all names, and its kind."""
    for last in range(min(width, at + 7) - 1, at - 1, -1):
        texts = ["".join(part[2 * at + 1 : 2 * last + 2]) for part in parts]
        if all(_TIME.fullmatch(text) for text in texts) and (
            last > at or all(len(text) >= 8 for text in texts)
        ):
            return last, "time"
        if (
            last == at + 1
            and _UNIT.match(parts[0][2 * last + 2])
            and all(_DECIMAL.fullmatch(text) for text in texts)
        ):
            return last, "decimal"
    # A length is a position: it can order slices, but a count beside it is preferred.
    behind = parts[0][2 * at + 2]
    is_length = bool(_UNIT.match(behind)) and not _ENERGY.match(behind)
    return at, "decimal" if is_length else "count"


def _word(text: str) -> str:
    found = _WORD.search(text)
    return found[1].lower() if found else ""


def _value(text: str, kind: TokenKind) -> float:
    if kind == "decimal":
        return float(text.replace(",", "."))
    return int("".join(NUMBER.findall(text)))


def _is_other(column: Column) -> bool:
    return column.word in _OTHER_WORDS or column.is_energy


def _is_dense(values: Sequence[float]) -> bool:
    """Whether whole numbers rise in about equal steps, with few gaps."""
    ordered = sorted(int(v) for v in values)
    step = gcd(*(b - a for a, b in pairwise(ordered)))
    return step > 0 and (ordered[-1] - ordered[0]) // step + 1 <= 2 * len(ordered)


def _order(column: Column) -> list[int]:
    return sorted(range(len(column.values)), key=lambda i: column.values[i])


def _problem(found: Sequence[Column], why: str) -> str:
    shown = ", ".join(
        f"{c.word or 'number'} {min(c.values):g} to {max(c.values):g}" for c in found[:3]
    )
    return (
        f"the names of {len(found[0].values)} files hold several numbers ({shown}), and {why}; "
        "rename the files so that one number counts slices, or give each stack its own folder"
    )
