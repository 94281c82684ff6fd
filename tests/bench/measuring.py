"""What the benchmarks share: rounds in which all ways run in turn, medians, tables, the machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from ctray.benchmark.machine import describe_machine

Seconds = dict[str, list[float]]


def in_turn(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    after: Callable[[], object] = lambda: None,
) -> Seconds:
    """Seconds of every way in each round; the first way changes from round to round.

    A way returns a float of what it took, or the call as a whole is timed; `after` cleans up and is
    not. On a shared machine only what ran side by side compares.
    """
    seconds: Seconds = {way: [] for way in ways}
    for turn in range(repeats):
        names = list(ways)
        first = turn % len(names)
        for way in [*names[first:], *names[:first]]:
            began = perf_counter()
            told = ways[way]()
            took = perf_counter() - began
            seconds[way].append(told if isinstance(told, float) else took)
            after()
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the rounds of one way's seconds by another's."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def spread(above: Sequence[float], below: Sequence[float]) -> str:
    """The same with the lowest and highest of the rounds."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table_head(*columns: str) -> str:
    """First two lines of a Markdown table."""
    return "\n".join([row(*columns), row(*("---" for _ in columns))])


def row(*cells: object) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def machine() -> str:
    """Date, processor and cores."""
    about = describe_machine()
    return f"{about['date']}, {about['machine']['cpu']}, {about['machine']['cores']} cores"
