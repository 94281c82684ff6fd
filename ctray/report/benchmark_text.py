"""The benchmark's table as text: what a screen shows, and Markdown for a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctray.evaluate.benchmark_table import ALL, MAIN, TableRow
from ctray.evaluate.scoring import OWN_METHOD

NONE = "–"
# Each with its best supervised threshold, one a group.
BASELINES = {
    "raw-best": "threshold",
    "smoothed-best": "smoothed",
    "zmedian-best": "less z median",
    "localstd-best": "local deviation",
}
_HEADINGS = (
    *("volumes", "scene", "n", "mean %", "worst %", "mean voxels", "IoU"),
    *("lost %", "worst", "crop lost %", "worst", "saved %", "covered", "stated"),
    *("not found", "empty", "false alarms", "uncertain"),
    *(f"{title} %" for title in BASELINES.values()),
    *("s", "MB read"),
)
_NOTES = """\
mean, worst: error of a box coordinate as part of the volume's side, by volume, without learning \
from labels. lost: part of the sample's voxels outside the box, and outside the crop; saved: part \
of the volume's voxels that the crop leaves out. covered: part of the located volumes whose crop \
loses at most {max_loss:.1%} of the sample's voxels; stated: what was promised of it. not found: \
samples for which there is no box; empty: empty volumes known as such. The last columns but two \
are the errors of classical pipelines with the threshold that the truth of the very same volumes \
chose, one for each family and scene."""


def overview(rows: Sequence[TableRow]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headings and cells of the main run: a line a group, ours and the supervised baselines."""
    errors = {(row.group, row.method): row.mean_of_side for row in rows}
    lines = []
    for row in rows:
        if row.method != OWN_METHOD or row.group.variant != MAIN:
            continue
        baselines = [_percent(errors.get((row.group, method)), 2) for method in BASELINES]
        lines.append([*_own_cells(row), *baselines, *_cost_cells(row)])
    return _HEADINGS, lines


def ablation(rows: Sequence[TableRow]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headings and cells: mean error in % of the side, a line a group, a column a variant."""
    own = [row for row in rows if row.method == OWN_METHOD]
    variants = list(dict.fromkeys(row.group.variant for row in own))
    by_place: dict[tuple[str, ...], dict[str, str]] = {}
    for row in own:
        group = row.group
        place = (group.archive, group.family, group.scene)
        by_place.setdefault(place, {})[group.variant] = _percent(row.mean_of_side, 2)
    lines = [
        [_volumes(*place), place[2], *(cells.get(v, NONE) for v in variants)]
        for place, cells in by_place.items()
    ]
    return ("volumes", "scene", *(f"{v} %" for v in variants)), lines


def markdown(result: Mapping[str, Any], rows: Sequence[TableRow]) -> str:
    """The whole result: what was measured on what, the table, the ablation.

    Parameters
    ----------
    result
        `ctray.benchmark.run.BenchmarkResult.about`.
    rows
        Of the same result.
    """
    max_loss = next((r.max_loss for r in rows if r.method == OWN_METHOD and r.max_loss), 0.001)
    parts = [
        "# Benchmark of localization",
        _about(result),
        _table(*overview(rows)),
        _NOTES.format(max_loss=max_loss),
    ]
    if any(row.group.variant != MAIN for row in rows):
        parts += ["## Ablation", _table(*ablation(rows))]
        settings = [f"`{n}`: `{' '.join(s)}`" for n, s in result["variants"].items()]
        parts.append("Mean error as part of the side. " + "; ".join(settings) + ".")
    return "\n\n".join(parts) + "\n"


def _about(result: Mapping[str, Any]) -> str:
    plan, machine = result["plan"], result["machine"]
    device = f", {machine['gpu']}" if machine["gpu"] else ""
    seeds = sorted(result["seeds"].values())
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    volumes = ", ".join(f"{n} {name}" for name, n in result["volumes"].items())
    lines = [
        f"- purpose: {plan['purpose']}; {volumes}; phantoms of {plan['size']} voxels a side",
        f"- seeds: {seeds[0]} to {seeds[-1]}, one a family and scene" if seeds else "- seeds: none",
        f"- {result['date']}; {machine['cpu']}, {machine['cores']} cores{device}",
        f"- ctray {result['ctray_version']}, {versions}",
    ]
    times = [f"{name} {seconds / 60:.1f} min" for name, seconds in result["seconds"].items()]
    lines += [f"- learning, localizing and cropping: {', '.join(times)}"] if times else []
    lines += [f"- `{result['command']}`"] if result["command"] else []
    return "\n".join(lines)


def _own_cells(row: TableRow) -> list[str]:
    total_empty = row.num_empty + row.num_false_alarms
    return [
        _volumes(row.group.archive, row.group.family, row.group.scene),
        row.group.scene,
        str(row.num_volumes),
        _percent(row.mean_of_side, 2),
        _percent(row.worst_of_side, 1),
        _number(row.mean_voxels, 2),
        _number(row.mean_iou, 3),
        _percent(row.mean_lost, 2),
        _percent(row.worst_lost, 1),
        _percent(row.mean_crop_lost, 3),
        _percent(row.worst_crop_lost, 2),
        _percent(row.mean_crop_saved, 1),
        _percent(row.observed_coverage, 1),
        _percent(row.stated_coverage, 1),
        str(row.num_missing),
        f"{row.num_empty}/{total_empty}" if total_empty else NONE,
        str(row.num_false_alarms),
        str(row.num_uncertain),
    ]


def _cost_cells(row: TableRow) -> list[str]:
    read = None if row.mean_bytes_read is None else row.mean_bytes_read / 1e6
    return [_number(row.mean_seconds, 1), _number(read, 1)]


def _volumes(archive: str, family: str, scene: str) -> str:
    """What a line is of: a family, or all of an archive."""
    return f"all {archive}" if family == ALL and scene == ALL else family


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    aligned = ["---", "---", *["---:"] * (len(headings) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, aligned, *lines))


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _percent(part: float | None, digits: int) -> str:
    return NONE if part is None else f"{100 * part:.{digits}f}"
