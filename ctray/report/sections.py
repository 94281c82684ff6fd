"""Parts of the page: sizes, training, scores, the table of volumes, a volume's section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctray.core.geometry import AXES
from ctray.evaluate.scoring import CROP_METHOD, OWN_METHOD
from ctray.records.volume_record import VolumeRecord
from ctray.report.encoding import svg_data_uri
from ctray.report.figures import HEAT, VolumeView, axis_figure, metric_title, training_figure
from ctray.report.head import status_said
from ctray.report.notes import box_notes
from ctray.report.round_bounds import BOUND_DASH, COLOR, EDGE_DASH
from ctray.report.summary import RunSummary, Sizes, VolumeRow
from ctray.report.text import (
    NONE,
    anchor,
    box_ranges,
    escape,
    human_bytes,
    number,
    percent,
    physical,
    times,
)


def notes_part(notes: Iterable[str]) -> str:
    """What could not be read."""
    return "".join(f'<p class="why failed">{escape(note)}</p>' for note in notes)


def coverage_part(lines: Sequence[str]) -> str:
    """What the archive holds beside the volumes of the run; nothing where that is nothing."""
    if not lines:
        return ""
    body = "<br>".join(escape(line) for line in lines)
    return f'<h2>Not in this run</h2><p class="note">{body}</p>'


def sizes_part(summary: RunSummary) -> str:
    """Table of sizes, of what is cropped and what stays whole."""
    groups = [
        ("Cropped", summary.sizes(cropped=True)),
        ("Left whole", summary.sizes(cropped=False)),
        ("All", summary.sizes()),
    ]
    body = "".join(_size_row(name, sizes) for name, sizes in groups if sizes.num_volumes)
    unknown = groups[-1][1].num_unknown
    more = f" {unknown} of unknown size left out." if unknown else ""
    names = ("", "Volumes", "Before", "After", "Saved", "Stored in crops")
    return (
        f"<h2>Sizes</h2>{_table(names, body, 'Sizes before and after', 'narrow')}"
        '<p class="note">Before and after count the voxels of level 0 without compression. '
        "Stored are the crops’ files: compressed, with their pyramids. Nothing is deleted from "
        f"the archive.{more}</p>"
    )


def model_part(summary: RunSummary, links: Sequence[tuple[str, str]]) -> str:
    """Training curve, versions and model, and links (address, name) to the tables."""
    parts = ["<h2>Model and files</h2>"]
    if summary.metrics:
        said = _training_said(summary)
        names = [n for n in ("loss", "accuracy", "displacement") if n in _last_row(summary)]
        curves = "".join(
            f'<img src="{svg_data_uri(training_figure(summary.metrics, name, summary.guessing))}" '
            f'alt="{escape(f"{metric_title(name)} over the training steps. {said}")}">'
            for name in names
        )
        parts.append(f'<div class="curves">{curves}</div><p class="note">{escape(said)}</p>')
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>"
        + (f"<code>{escape(value)}</code>" if "SHA" in name else escape(value))
        + "</dd>"
        for name, value in summary.facts
    )
    if links:
        named = " · ".join(f'<a href="{escape(url)}">{escape(name)}</a>' for url, name in links)
        facts += f"<dt>Files</dt><dd>{named}</dd>"
    parts += [f'<dl class="facts">{facts}</dl>'] if facts else []
    return "".join(parts) if len(parts) > 1 else ""


def _last_row(summary: RunSummary) -> dict[str, float]:
    """Last row of metrics that is of training, not of held-out volumes alone."""
    return next((row for row in reversed(summary.metrics) if "loss" in row), summary.metrics[-1])


def _training_said(summary: RunSummary) -> str:
    """One or two sentences on how training ended."""
    last = _last_row(summary)
    name = next((n for n in ("accuracy", "displacement") if n in last), None)
    said = f"At step {last['step']:,.0f} the loss is {last.get('loss', float('nan')):.3f}"
    if name is None:
        return f"{said}."
    said += f" and the {metric_title(name).lower()} {last[name]:.2f}; guessing gives "
    said += f"{summary.guessing:.2f}."
    checked = [row for row in summary.metrics if f"validation_{name}" in row]
    if checked:
        held, own = (checked[-1][f"{prefix}_{name}"] for prefix in ("validation", "training"))
        said += f" Without dropout and augmentation it is {held:.2f} on volumes that were held "
        said += f"out and {own:.2f} on those that were learned from"
        ranks = [checked[-1].get(f"{p}_rank_{name}") for p in ("validation", "training")]
        said += f" (by rank {ranks[0]:.2f} and {ranks[1]:.2f})." if None not in ranks else "."
    return said


def scores_part(summary: RunSummary) -> str:
    """Score table of our boxes and the baselines against the truth; nothing where not scored."""
    if not summary.scores:
        return ""
    own = (OWN_METHOD, CROP_METHOD)
    ours = [row for row in summary.scores if row.get("method") in own]
    others = [row for row in summary.scores if row.get("method") not in own]
    others.sort(key=lambda row: _or_inf(row.get("mean_voxels")))
    body = "".join(_score_row(row) for row in [*ours, *others])
    names = ("Method", "Found", "Mean", "Median", "90%", "Worst", "IoU", "Sample lost", "Saved")
    return (
        f"<h2>Against the truth</h2>{_table(names, body, 'Scores against the truth')}"
        '<p class="note">Mean, median, 90% and worst are over the volumes, of the mean absolute '
        "error of the six box coordinates: in voxels of level 0, and below it relative to the "
        "volume’s side; where a method found no box, those of the whole volume. Sample lost is "
        "the part of the sample’s voxels outside the box, mean and worst. Methods marked “sees "
        "the truth” choose their threshold with the truth of these very volumes in hand.</p>"
    )


def volumes_part(
    rows: Sequence[VolumeRow], pictured: set[str], *, max_rows: int, table_url: str
) -> str:
    """Table of the volumes, those that need a look first."""
    scored = any(row.error_voxels is not None for row in rows)
    names = ["Volume", "Status", "Box", "Before", "After", "Saved", "Least certain face"]
    names += ["Error"] if scored else []
    body = "".join(_volume_row(row, row.volume_id in pictured, scored) for row in rows[:max_rows])
    notes = []
    if len(rows) > max_rows:
        notes.append(
            f"The table shows the first {max_rows:,} of {len(rows):,} volumes; all are in "
            f'<a href="{escape(table_url)}">localizations.parquet</a>.'
        )
    if len(pictured) < len(rows):
        notes.append(
            f"{len(pictured):,} of {len(rows):,} volumes have pictures below: what failed or is "
            "uncertain, the least certain ones, and a random sample of the others."
        )
    extra = "".join(f'<p class="note">{note}</p>' for note in notes)
    return f"<h2>Volumes</h2>{_table(names, body, 'Volumes')}{extra}"


def key_part(
    *, scored: bool, mapped: bool = False, several: bool = False, column: bool = False
) -> str:
    """What the lines in the pictures mean."""
    items = [
        ("box of the sample, a number for each of several", "#ff8a00", 2, "")
        if several
        else ("box of the sample", "#ff8a00", 2, ""),
        ("crop, with margin", "#ff8a00", 1.2, "2 2"),
        ("field of view", COLOR, 1.4, _dashes(BOUND_DASH)),
        ("threshold", "#1f2933", 1.2, "4 3"),
        ("background level", "#5f6b7a", 1.2, "1 2"),
    ]
    items[3:3] = [("edge of medium", COLOR, 1.1, _dashes(EDGE_DASH))] if column else []
    items[1:1] = [("truth", "#12b886", 1.4, "5 3")] if scored else []
    items += [("variance, and hull of its region", HEAT, 1.6, "")] if mapped else []
    lines = "".join(
        f'<li><svg viewBox="0 0 28 12" aria-hidden="true"><line x1="0" x2="28" y1="6" y2="6" '
        f'stroke="{color}" stroke-width="{width}" stroke-dasharray="{dash}"/></svg>{name}</li>'
        for name, color, width, dash in items
    )
    return f'<ul class="key">{lines}</ul>'


def _dashes(lengths: tuple[float, ...]) -> str:
    return " ".join(f"{length:g}" for length in lengths)


def volume_part(row: VolumeRow, view: VolumeView | None) -> str:
    """Section of one volume: sizes, facts, reason, and its pictures by axis."""
    receipt = row.receipt
    sizes = human_bytes(row.bytes_before)
    if row.bytes_after is not None:
        sizes += f" → <b>{human_bytes(row.bytes_after)}</b> ({percent(row.saved)} saved"
        sizes += f"; {human_bytes(row.bytes_stored)} stored)"
    told = (_volume_facts(row), _origin_facts(receipt), box_notes(receipt.working))
    lines = [" · ".join(part) for part in told if part]
    facts = "".join(f'<p class="line">{line}</p>' for line in lines)
    reason = receipt.reason or ("no reason was given" if row.status == "failed" else "")
    why = f'<p class="why {escape(row.status)}">{escape(reason)}</p>' if reason else ""
    why += f'<p class="note">Note: {escape(receipt.notes)}</p>' if receipt.notes else ""
    pictures = ""
    if view is not None and (view.pictures or view.profiles):
        figures = "".join(_axis_part(row, view, axis) for axis in range(3))
        pictures = f'<div class="views">{figures}</div>'
    elif row.status != "pending":
        pictures = '<p class="note">No pictures were kept of this volume.</p>'
    return (
        f'<section class="volume" id="{escape(anchor(row.volume_id))}"><div class="head">'
        f"<h3>{escape(row.volume_id)}</h3>{_status(row)}"
        f'<span class="line sizes">{sizes}</span></div>{facts}{why}{pictures}</section>'
    )


def _axis_part(row: VolumeRow, view: VolumeView, axis: int) -> str:
    name = AXES[axis]
    shown = f"{view.quantity} profile"
    shown = f"Projection, slice and {shown.lower()}" if view.pictures else shown
    box = view.box
    place = f"; the box spans {box.start[axis]} to {box.stop[axis]}" if box else "; no box"
    alt = f"{shown} of {row.volume_id} along {name}{place} of {view.shape[axis]} voxels."
    uri = svg_data_uri(axis_figure(view, axis))
    caption = []
    stretch = view.stretches.get(name)
    if stretch:
        caption += [f"threshold {stretch['threshold']:.2f}"]
        caption += [f"background {stretch['background']:.2f}"]
        if view.certainty:
            low, high = view.certainty[2 * axis : 2 * axis + 2]
            caption += [f"{name}0 {low:.2f}", f"{name}1 {high:.2f}"]
        if view.refined:
            caption += ["in the colour of the box: probability of sample, self-trained"]
        if view.refined.get("clear") and box:
            caption += ["faces half way from the medium's grey value to the sample's"]
    elif view.profiles:
        caption.append(
            "no slice is certain enough" if view.quantity == "Certainty" else "no region stands out"
        )
    return (
        f'<figure><img src="{uri}" alt="{escape(alt)}">'
        f"<figcaption>{' · '.join(caption)}</figcaption></figure>"
    )


def _volume_facts(row: VolumeRow) -> list[str]:
    receipt, facts = row.receipt, []
    if receipt.shape:
        kind = f" {escape(receipt.dtype)}" if receipt.dtype else ""
        facts.append(f"{times(receipt.shape)} voxels{kind}")
    if receipt.voxel_size_um:
        edges = dict.fromkeys(f"{um:.4g}" for um in receipt.voxel_size_um)
        facts.append(f"{' × '.join(edges)} µm")
    elif receipt.plain_scale:
        facts.append(f"voxel size {escape(receipt.plain_scale)}")
    box = receipt.sample_box
    if box is not None:
        extent = times(box.shape)
        if receipt.voxel_size_um:
            extent += f", {physical(box.shape, receipt.voxel_size_um)}"
        facts.append(f"<b>box {box_ranges(box)}</b> ({extent})")
    facts += [
        f"specimen {number}: {box_ranges(specimen.sample_box)}"
        for number, specimen in enumerate(receipt.specimens or (), start=1)
    ]
    facts += [f"crop {box_ranges(box)}" for box in receipt.crop_boxes]
    if row.status == "located" and receipt.promise is not None:
        facts.append(receipt.promise_text)
    if row.least_certain_face:
        facts.append(f"certainty {number(receipt.confidence)} at {row.least_certain_face}")
    if box is not None and row.error_voxels is not None:
        facts.append(f"error {number(row.error_voxels)} voxels")
    return facts


def _origin_facts(receipt: VolumeRecord) -> list[str]:
    facts = [escape(receipt.source_url)]
    if receipt.bytes_read:
        facts.append(f"read {human_bytes(receipt.bytes_read)}")
    if receipt.seconds:
        facts.append(f"{receipt.seconds:.1f} s")
    return facts


def _volume_row(row: VolumeRow, has_section: bool, scored: bool) -> str:
    name = escape(row.volume_id)
    if has_section:
        name = f'<a href="#{escape(anchor(row.volume_id))}">{name}</a>'
    box = row.receipt.sample_box
    if box is None and row.receipt.reason:
        place = f'<td class="reason">{escape(row.receipt.reason)}</td>'
    else:
        crops = "".join(f"<small>crop {box_ranges(b)}</small>" for b in row.receipt.crop_boxes)
        place = f'<td class="box">{box_ranges(box) if box else NONE}{crops}</td>'
    confidence = number(row.receipt.confidence)
    if row.least_certain_face:
        confidence += f" {row.least_certain_face}"
    cells = [
        human_bytes(row.bytes_before),
        human_bytes(row.bytes_after),
        percent(row.saved),
        confidence,
    ]
    if scored:
        cells.append(_both(row.error_voxels, row.error_of_volume))
    numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row" class="id">{name}</th><td>{_status(row)}</td>' + (
        f"{place}{numbers}</tr>"
    )


def _score_row(row: Mapping[str, Any]) -> str:
    method = str(row.get("method"))
    own = method == OWN_METHOD
    kind = "sees the truth" if row.get("supervised") else ""
    if method == CROP_METHOD:
        # Larger than the sample on purpose: its distance from the truth is no error.
        kind = "the box with its margin"
        row = {k: v for k, v in row.items() if not k.endswith(("_voxels", "_of_volume"))}
    found = row.get("num_located") or 0
    total = found + (row.get("num_missing") or 0)
    alarms = row.get("num_false_alarms")
    cells = [
        f"{found} of {total}" + (f"<small>{alarms} false alarms</small>" if alarms else ""),
        _both(row.get("mean_voxels"), row.get("mean_of_volume")),
        _both(row.get("median_voxels"), row.get("median_of_volume")),
        _both(row.get("p90_voxels"), row.get("p90_of_volume")),
        _both(row.get("worst_voxels"), row.get("worst_of_volume")),
        number(row.get("mean_iou")),
        percent(row.get("mean_sample_lost"), 1)
        + _small(percent(row.get("worst_sample_lost"), 1), row.get("worst_sample_lost")),
        percent(row.get("mean_storage_saved")),
    ]
    numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    small = f"<small>{kind}</small>" if kind else ""
    return (
        f'<tr{" class=own" if own else ""}><th scope="row">{escape(method)}{small}</th>'
        f"{numbers}</tr>"
    )


def _size_row(name: str, sizes: Sizes) -> str:
    cells = [
        f"{sizes.num_volumes:,}",
        human_bytes(sizes.before),
        human_bytes(sizes.after),
        percent(sizes.saved),
        human_bytes(sizes.stored) if sizes.stored else NONE,
    ]
    numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{name}</th>{numbers}</tr>'


def _table(names: Sequence[str], body: str, label: str, width: str = "wide") -> str:
    left = {"", "Volume", "Status", "Box", "Method"}
    head = "".join(
        f'<th scope="col"{"" if n in left else " class=n"}>{n}</th>' if n else "<td></td>"
        for n in names
    )
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">'
        f'<table class="{width}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _both(voxels: float | None, relative: float | None) -> str:
    return number(voxels) + _small(percent(relative, 1), relative)


def _small(text: str, value: float | None) -> str:
    """Second line of a cell, nothing where there is no value."""
    return "" if value is None else f"<small>{text}</small>"


def _status(row: VolumeRow) -> str:
    """Status, and below it that a crop states no loss rate: such a one is not shown as safe."""
    status, promise = row.status, row.receipt.promise
    unstated = status == "located" and promise not in (None, "calibrated")
    shown = f'<span class="status {escape(status)}{" unstated" if unstated else ""}">'
    shown += f"{escape(status_said(status))}</span>"
    return f"{shown}<small>{escape(promise)}</small>" if unstated else shown


def _or_inf(value: float | None) -> float:
    return float("inf") if value is None else value
