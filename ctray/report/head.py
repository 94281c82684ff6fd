"""Head of the page: title, what came out, and the key figures."""

from __future__ import annotations

from collections.abc import Mapping

from ctray.report.summary import RunSummary
from ctray.report.text import escape, human_bytes, percent

_SAID = {"pending": "not done yet"}


def status_said(status: str) -> str:
    """Status in words."""
    return _SAID.get(status, status)


def head_part(summary: RunSummary) -> str:
    """Title, what came out in one sentence, and the key figures."""
    cropped, whole = summary.sizes(cropped=True), summary.sizes()
    counts = summary.counts
    attention = counts.get("failed", 0) + counts.get("uncertain", 0)
    figures = [
        ("Volumes", f"{len(summary.rows):,}", ""),
        ("Located", f"{counts.get('located', 0):,}", _others(counts)),
        ("To look at", f"{attention:,}", "failed or uncertain"),
        ("Before", human_bytes(cropped.before), "volumes with a crop"),
        ("After", human_bytes(cropped.after), f"{human_bytes(cropped.stored)} on disk"),
        ("Saved", percent(cropped.saved), f"{percent(whole.saved)} of the whole archive"),
    ]
    if summary.promises:
        figures.append(_stated(summary))
    if not cropped.num_volumes:
        figures = [*figures[:3], ("Before", human_bytes(whole.before), "nothing cropped yet")]
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}{f'<small>{small}</small>' if small else ''}</dd></div>"
        for name, value, small in figures
    )
    why = ""
    if summary.not_calibrated is not None:
        why = f'<p class="why uncertain">Not calibrated: {escape(summary.not_calibrated)}.</p>'
    where = f'<p class="where">{escape(summary.archive)}</p>' if summary.archive else ""
    return (
        f'<header><p class="kind">ctray report</p><h1>{escape(summary.title)}</h1>{where}'
        f'<dl class="figures">{cells}</dl>{why}</header>'
    )


def _stated(summary: RunSummary) -> tuple[str, str, str]:
    """Key figure: the loss that crops state, or that some state none."""
    promises, total = summary.promises, sum(summary.promises.values())
    unstated = total - promises.get("calibrated", 0)
    if unstated:
        most = next(name for name in promises if name != "calibrated")
        return "Stated loss", most, f"{unstated:,} of {total:,} crops state no loss rate"
    receipt = next(r.receipt for r in summary.rows if r.receipt.promise == "calibrated")
    said = receipt.promise_text
    return "Stated loss", percent(receipt.max_loss, 2), said


def _others(counts: Mapping[str, int]) -> str:
    parts = [f"{n:,} {status_said(s)}" for s, n in counts.items() if s != "located"]
    return ", ".join(parts)
