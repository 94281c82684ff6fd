"""The benchmark as text: cells of its tables, and the whole result as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctray.core.readable import NONE, duration_text, number_text, percent_number
from ctray.evaluate.benchmark_table import ALL, MAIN, TableRow
from ctray.evaluate.scoring import OWN_METHOD

# Each with the best threshold of its group, chosen with the truth.
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
Columns: mean and worst are the error of a box coordinate, relative to the volume's side, over the \
volumes of the row; ctray's boxes use no labels. lost is the fraction of the sample's voxels \
outside the box, and crop lost outside the crop. saved is the fraction of the volume's voxels \
outside the crop. covered is the fraction of located volumes whose crop loses at most \
{max_loss:.1%} of the sample's voxels; stated is the fraction that the calibration states. \
not found counts samples without a box. empty counts empty volumes that were recognised. The \
columns before the last two are the errors of classical pipelines, whose threshold was chosen \
with the truth of the same volumes, once per family and scene."""


def overview(rows: Sequence[TableRow]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headings and cells of the main run, one line per group, with the supervised baselines."""
    errors = {(row.group, row.method): row.mean_of_side for row in rows}
    lines = []
    for row in rows:
        if row.method != OWN_METHOD or row.group.variant != MAIN:
            continue
        baselines = [percent_number(errors.get((row.group, method)), 2) for method in BASELINES]
        lines.append([*_own_cells(row), *baselines, *_cost_cells(row)])
    return _HEADINGS, lines


def ablation(rows: Sequence[TableRow]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headings and cells of mean errors in %, one line per group, one column per variant."""
    own = [row for row in rows if row.method == OWN_METHOD]
    variants = list(dict.fromkeys(row.group.variant for row in own))
    by_place: dict[tuple[str, ...], dict[str, str]] = {}
    for row in own:
        group = row.group
        place = (group.archive, group.family, group.scene)
        by_place.setdefault(place, {})[group.variant] = percent_number(row.mean_of_side, 2)
    lines = [
        [_volumes(*place), place[2], *(cells.get(v, NONE) for v in variants)]
        for place, cells in by_place.items()
    ]
    return ("volumes", "scene", *(f"{v} %" for v in variants)), lines


def markdown(result: Mapping[str, Any], rows: Sequence[TableRow]) -> str:
    """Markdown of the whole result: volumes and machine, the table, the ablation.

    Parameters
    ----------
    result
        `ctray.benchmark.run.BenchmarkResult.about`.
    rows
        Rows of the same result.
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
        parts.append(f"Mean error relative to the volume's side. Settings: {'; '.join(settings)}.")
    return "\n\n".join(parts) + "\n"


def _about(result: Mapping[str, Any]) -> str:
    plan, machine = result["plan"], result["machine"]
    device = f", {machine['gpu']}" if machine["gpu"] else ""
    seeds = sorted(result["seeds"].values())
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    volumes = ", ".join(f"{n} {name}" for name, n in result["volumes"].items())
    about_seeds = f"{seeds[0]} to {seeds[-1]}, one per family and scene" if seeds else "none"
    lines = [
        f"- purpose: {plan['purpose']}; {volumes}; phantoms of {plan['size']} voxels a side",
        f"- seeds: {about_seeds}",
        f"- {result['date']}; {machine['cpu']}, {machine['cores']} cores{device}",
        f"- ctray {result['ctray_version']}, {versions}",
    ]
    times = [f"{name} {duration_text(seconds)}" for name, seconds in result["seconds"].items()]
    lines += [f"- time to train, localize and crop: {', '.join(times)}"] if times else []
    lines += [f"- `{result['command']}`"] if result["command"] else []
    return "\n".join(lines)


def _own_cells(row: TableRow) -> list[str]:
    total_empty = row.num_empty + row.num_false_alarms
    return [
        _volumes(row.group.archive, row.group.family, row.group.scene),
        row.group.scene,
        str(row.num_volumes),
        percent_number(row.mean_of_side, 2),
        percent_number(row.worst_of_side, 1),
        number_text(row.mean_voxels, 2),
        number_text(row.mean_iou, 3),
        percent_number(row.mean_lost, 2),
        percent_number(row.worst_lost, 1),
        percent_number(row.mean_crop_lost, 3),
        percent_number(row.worst_crop_lost, 2),
        percent_number(row.mean_crop_saved, 1),
        percent_number(row.observed_coverage, 1),
        percent_number(row.stated_coverage, 1),
        str(row.num_missing),
        f"{row.num_empty}/{total_empty}" if total_empty else NONE,
        str(row.num_false_alarms),
        str(row.num_uncertain),
    ]


def _cost_cells(row: TableRow) -> list[str]:
    read = None if row.mean_bytes_read is None else row.mean_bytes_read / 1e6
    return [number_text(row.mean_seconds, 1), number_text(read, 1)]


def _volumes(archive: str, family: str, scene: str) -> str:
    """Name of the volumes of a line: a family, or a whole archive."""
    return f"all {archive}" if family == ALL and scene == ALL else family


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    aligned = ["---", "---", *["---:"] * (len(headings) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, aligned, *lines))
