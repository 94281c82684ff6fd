"""Tables and summaries as text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ctray.archive.catalog import Catalog
from ctray.core.errors import printable
from ctray.core.geometry import FACES
from ctray.core.readable import NONE, duration_text, number_text, percent_number, size_text
from ctray.evaluate.against_truth import Evaluation
from ctray.evaluate.benchmark_table import TableRow
from ctray.evaluate.scoring import CROP_METHOD, OWN_METHOD, MethodSummary
from ctray.evaluate.specimen_scores import MATCHED, SpecimenScores
from ctray.pipeline.verifying import CropCheck
from ctray.records.box_table import CROP_FACES
from ctray.report.benchmark_text import overview

if TYPE_CHECKING:
    from ctray.cluster.submit import Job
    from ctray.pipeline.plan import ArchivePlan, Estimate

_FEW = 5
# A pipe has no width, and every row must be one line.
_PIPE_WIDTH = 10_000


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    # Names are not markup: [red] in a name is printed as it is.
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    console.print(table)


def catalog_table(catalog: Catalog) -> Table:
    """Return a table with one row per volume; `catalog_lines` says why one failed."""
    table = _plain_table("volume", "kind", ">shape", "type", ">voxel size µm", ">size", "")
    for e in catalog:
        table.add_row(
            e.volume_id,
            e.kind,
            " × ".join(str(n) for n in e.shape) if e.shape else NONE,
            e.dtype or NONE,
            " × ".join(f"{um:g}" for um in e.voxel_size.um) if e.voxel_size else NONE,
            size_text(e.num_bytes),
            "failed" if e.status == "failed" else "",
        )
    return table


def catalog_lines(catalog: Catalog) -> list[str]:
    """Return lines that count the volumes and name what was skipped, and why."""
    total = size_text(sum(e.num_bytes or 0 for e in catalog.ok))
    return [
        f"{len(catalog.ok)} volumes, {total}; {len(catalog.failed)} unreadable",
        *catalog.lines(),
    ]


def score_table(evaluation: Evaluation) -> Table:
    """Return a table with one row per method, ours first; errors in voxels and % of the side."""
    table = _plain_table(
        "method",
        *(">mean", ">median", ">p90", ">worst", ">% side"),
        *(">IoU", ">lost %", ">worst", ">saved %"),
    )
    for summary in evaluation.ranked():
        supervised = summary.method in evaluation.supervised
        name = f"{summary.method} *" if supervised else summary.method
        style = "bold" if summary.method == OWN_METHOD else None
        table.add_row(name, *_score_cells(summary), style=style)
    return table


def score_lines(evaluation: Evaluation) -> list[str]:
    """Return lines that explain the score table and add to it."""
    own = evaluation.table.summary(OWN_METHOD)
    lines = [
        "mean to worst: error of a box coordinate in voxels, by volume; lost: fraction of sample "
        "voxels; saved: fraction of voxels of the volume"
    ]
    if evaluation.supervised:
        lines.append("* threshold chosen with the truth of the same volumes")
    found = f"{own.num_located} of {own.num_located + own.num_missing} samples located"
    if own.num_empty or own.num_false_alarms:
        total = own.num_empty + own.num_false_alarms
        found += f", {own.num_empty} of {total} empty volumes found empty"
    if own.worst_voxels is not None:
        found += f"; worst: {own.worst_volume_id}, {own.worst_voxels:.1f} voxels"
    lines.append(found)
    if evaluation.specimens is not None:
        lines.append(_specimens_line(evaluation.specimens))
    without = evaluation.table.without_prediction
    if without:
        lines.append(f"{len(without)} volumes of the truth are not in the run, {without[0]} first")
    unknown = evaluation.table.without_truth
    if unknown:
        lines.append(f"{len(unknown)} volumes of the run have no truth, {unknown[0]} first")
    return lines


def _specimens_line(scores: SpecimenScores) -> str:
    line = (
        f"specimens: {scores.num_found} boxes for {scores.num_true}, the right number in "
        f"{scores.num_right} of {scores.num_volumes} volumes; {scores.matched_share:.0%} matched "
        f"(intersection over union of {MATCHED} or more)"
    )
    return line if scores.mean_voxels is None else f"{line}, error {scores.mean_voxels:.2f} voxels"


def benchmark_table(rows: Sequence[TableRow]) -> Table:
    """Return a table with one row per group of volumes: ours beside the best baseline."""
    headings, lines = overview(rows)
    table = _plain_table(*headings[:2], *(f">{h}" for h in headings[2:]))
    for line in lines:
        table.add_row(*line)
    return table


def job_table(jobs: Sequence[Job]) -> Table:
    """Return a table with one row per job."""
    table = _plain_table("id", "job", "status", "began", ">seconds", "run")
    for job in jobs:
        began = "" if job.began is None else _local_time(job.began)
        until = job.ended or (time.time() if job.is_running else None)
        seconds = "" if job.began is None or until is None else f"{until - job.began:,.0f}"
        table.add_row(job.id, job.name, job.status, began, seconds, job.run)
    return table


def _local_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def check_table(checks: Sequence[CropCheck]) -> Table:
    """Return a table with one row per crop and its problem."""
    table = _plain_table("volume", ">specimen", "crop", "problem")
    for check in checks:
        table.add_row(
            check.volume_id,
            str(check.specimen) if check.specimen else "",
            check.crop_url or NONE,
            check.problem or "",
        )
    return table


def receipt_table(rows: Iterable[dict[str, Any]]) -> Table:
    """Return a table with one row per volume: status, boxes, sizes and time."""
    table = _plain_table(
        "volume",
        "status",
        ">confidence",
        ">crops",
        "stated loss",
        "sample box",
        "crop box",
        ">kept %",
        ">size",
        ">read",
        ">written",
        ">s",
        "why",
    )
    for row in rows:
        table.add_row(
            row["volume_id"],
            row["status"],
            number_text(row["confidence"], 2),
            NONE if row["crops"] is None else str(row["crops"]),
            row["promise"] or NONE if row["max_loss"] is None else f"{row['max_loss']:.2%}",
            _faces(row, FACES),
            _faces(row, CROP_FACES),
            percent_number(row["kept_fraction"], 1),
            *(size_text(row[name]) for name in ("bytes_total", "bytes_read", "bytes_written")),
            number_text(row["seconds"], 1),
            row["reason"] or row["notes"] or "",
        )
    return table


def _faces(row: dict[str, Any], names: Sequence[str]) -> str:
    """Return the box of a row, such as `12:52 8:40 10:44` for z, y and x."""
    values = [row[name] for name in names]
    if None in values:
        return NONE
    return " ".join(f"{a}:{b}" for a, b in zip(values[::2], values[1::2], strict=True))


def run_lines(facts: dict[str, Any]) -> list[str]:
    """Return lines with counts, sizes and places of a run."""
    counts = ", ".join(f"{n} {status}" for status, n in facts["counts"].items())
    lines = [f"{sum(facts['counts'].values())} volumes: {counts}"]
    if facts["bytes_after"] is not None and facts["bytes_before"]:
        lines.append(
            f"{size_text(facts['bytes_before'])} before, {size_text(facts['bytes_after'])} after: "
            f"{facts['saved']:.0%} saved"
        )
    promises = [f"{n} {promise}" for promise, n in facts["promises"].items()]
    lines += [f"promise {', '.join(promises)}"] if promises else []
    if facts["not_calibrated"] is not None:
        lines.append(
            f"not calibrated: {facts['not_calibrated']}; margins are wider and no loss rate is "
            "stated (ctray calibrate RUN --truth TRUTH fits margins to your own volumes)"
        )
    lines += facts.get("coverage", ())
    places = ("boxes", "crops", "report", "picture")
    return lines + [f"{what:<8}{facts[what]}" for what in places if facts.get(what)]


def plan_lines(plan: ArchivePlan) -> list[str]:
    """Return lines of a plan: the archive, what a run saves and takes, and the assumptions."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in plan.kinds.items())
    stored = _interval(plan.bytes_stored, size_text)
    lines = [
        f"{plan.num_volumes:,} volumes, {size_text(plan.bytes_total)} of voxels"
        f"{f', {stored} stored' if stored else ''}: {kinds}"
    ]
    if plan.num_done:
        lines.append(f"{plan.num_done:,} of them are finished")
    lines += plan.coverage
    lines += [f"unreadable: {reason}" for _, reason in plan.unreadable[:_FEW]]
    if plan.num_unreadable > _FEW:
        lines.append(f"{plan.num_unreadable - _FEW:,} more unreadable; --json names all of them")
    saved = _interval(plan.saved, lambda fraction: f"{fraction:.0%}")
    if plan.saved is not None:
        bytes_saved = size_text(plan.saved.value * plan.bytes_total)
        rough = "; a rough guess" if plan.basis == "threshold" else ""
        lines.append(f"saves {saved} of the voxels, {bytes_saved}{rough}")
    hours = _interval(plan.hours, _hours)
    if plan.num_done == plan.num_volumes:
        lines.append("all volumes are finished")
    elif plan.hours is not None and plan.training_hours:
        lines.append(
            f"takes {_hours(plan.training_hours + plan.hours.value)} with {plan.num_actors} "
            f"processes: {_hours(plan.training_hours)} to train, then {hours}"
        )
    elif hours:
        lines.append(f"takes {hours} with {plan.num_actors} processes")
    if plan.could_hold > plan.num_actors:
        lines.append(f"{plan.could_hold} processes fit: --set pool.max_size={plan.could_hold}")
    return lines + [f"- {line}" for line in plan.assumptions]


def _interval(estimate: Estimate | None, show: Callable[[float], str]) -> str:
    """Return a value with its interval, such as `74% (70% to 78%)`; empty if unknown."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{show(estimate.value)} (one volume, no interval)"
    if estimate.low == estimate.high:
        return show(estimate.value)
    return f"{show(estimate.value)} ({show(estimate.low)} to {show(estimate.high)})"


def _hours(hours: float) -> str:
    return duration_text(3600 * hours)


def _score_cells(summary: MethodSummary) -> list[str]:
    errors = [
        number_text(summary.mean_voxels, 2),
        number_text(summary.median_voxels, 2),
        number_text(summary.p90_voxels, 2),
        number_text(summary.worst_voxels, 1),
        percent_number(summary.mean_of_volume, 2),
    ]
    if summary.method == CROP_METHOD:  # Crops are larger than the sample on purpose.
        errors = [NONE] * len(errors)
    return [
        *errors,
        number_text(summary.mean_iou, 3),
        percent_number(summary.mean_sample_lost, 2),
        percent_number(summary.worst_sample_lost, 1),
        percent_number(summary.mean_storage_saved, 1),
    ]


class _PrintableTable(Table):
    """Table of names from archives; control characters are made visible."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(printable(c) if isinstance(c, str) else c for c in cells), **options)


def _plain_table(*columns: str) -> Table:
    """Return an empty table; `>` before a heading aligns its column to the right."""
    table = _PrintableTable(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=bool(column),
        )
    return table
