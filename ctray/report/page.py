"""The page of a run: one HTML file that needs no other. Its texts are in `templates/`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ctray.core import readable
from ctray.core.errors import printable
from ctray.core.geometry import AXES
from ctray.evaluate.scoring import CROP_METHOD, OWN_METHOD
from ctray.preprocess.field_of_view import FieldOfView
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.report.figures import lines
from ctray.report.figures.encoding import png_bytes, svg_data_uri
from ctray.report.figures.training import metric_title, training_figure
from ctray.report.figures.view import VolumeView
from ctray.report.figures.volume import axis_figure, overview_figure
from ctray.report.summary import RunSummary, VolumeRow, choose_pictured, summarize_run
from ctray.storage import store

_log = logging.getLogger(__name__)

_FILES = ("localizations.parquet", "catalog.parquet", "scores.json", "run.json")


def write_report(run: RunFolder, *, max_pictured: int = 60, max_rows: int = 2000) -> str:
    """Write `report/index.html`, and `report/located.png` of a typical located volume.

    Parameters
    ----------
    run
        Folder of the run; the run may be unfinished.
    max_pictured
        Number of volumes up to which all get pictures. Of more volumes, those that need review,
        the least certain ones and a sample of the others get pictures.
    max_rows
        Most rows in the table of volumes.

    Returns
    -------
    str
        URL of the page.

    Raises
    ------
    NotFoundError
        If the folder holds no run.
    StorageError
        If the page cannot be written.
    """
    summary = summarize_run(run)
    pictured = choose_pictured(summary.rows, max_pictured)
    store.write_bytes(run.report, _page(run, summary, pictured, max_rows).encode())
    typical = _typical(summary.rows)
    view = _view(run, typical) if typical is not None else None
    if view is not None and view.pictures:
        picture = png_bytes(overview_figure(view), scale=1.5)
        store.write_bytes(run.at("report", "located.png"), picture)
    return run.report


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A volume with pictures as the page shows it; one data URI per axis, none without data."""

    row: VolumeRow
    view: VolumeView | None
    uris: Sequence[Markup]


def _page(run: RunFolder, summary: RunSummary, pictured: Sequence[VolumeRow], max_rows: int) -> str:
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            summary=summary,
            pictured={row.volume_id for row in pictured},
            # One at a time: the pictures of a volume take megabytes.
            sections=(_section(run, row) for row in pictured),
            key=_key(summary, pictured),
            links=[name for name in _FILES if store.exists(run.at(name))],
            max_rows=max_rows,
            training_uri=partial(_training_uri, summary),
        )
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("ctray.report"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "anchor": _anchor,
        "box": readable.box_text,
        "duration": readable.duration_text,
        "extent": readable.extent_text,
        "length_in": readable.length_text,
        "number": readable.number_text,
        "percent": readable.percent_text,
        "size": readable.size_text,
        "signif": "{:.4g}".format,
    }
    environment.globals |= {
        "AXES": AXES,
        "CROP_METHOD": CROP_METHOD,
        "NONE": readable.NONE,
        "OWN_METHOD": OWN_METHOD,
        "lines": lines,
        "metric_title": metric_title,
    }
    return environment


def _visible(value: object) -> object:
    """Text of the archive with its control characters made visible; autoescape does the rest."""
    is_plain = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, keep="\n\t") if is_plain else value


def _anchor(volume_id: str) -> str:
    """Id of a volume's section: one word, for any name of a volume."""
    return f"volume-{quote(volume_id, safe='')}"


def _training_uri(summary: RunSummary, metric: str) -> Markup:
    return _data_uri(training_figure(summary.metrics, metric, summary.guessing))


def _data_uri(figure: Any) -> Markup:
    # Safe in double quotes, and escaping would lengthen it by half.
    return Markup(svg_data_uri(figure))  # noqa: S704


def _section(run: RunFolder, row: VolumeRow) -> _Section:
    view = _view(run, row)
    drawn = view is not None and bool(view.pictures or view.profiles)
    uris = [_data_uri(axis_figure(view, axis)) for axis in range(3)] if view and drawn else []
    return _Section(row=row, view=view, uris=uris)


def _key(summary: RunSummary, pictured: Sequence[VolumeRow]) -> dict[str, bool]:
    """Which optional lines the pictures have."""
    receipts = [row.receipt for row in pictured]
    return {
        "truth": any(row.truth is not None for row in summary.rows),
        "specimens": any(r.specimens for r in receipts),
        "medium": any(_field_of_view(r).column for r in receipts),
        "variance": any(r.map_url for r in receipts),
        "sample_profiles": any(r.refined.get("profiles") for r in receipts),
    }


def _typical(rows: Sequence[VolumeRow]) -> VolumeRow | None:
    """Located volume of median confidence: neither the best nor the worst."""
    located = [row for row in rows if row.status == "located"]
    return located[len(located) // 2] if located else None


def _view(run: RunFolder, row: VolumeRow) -> VolumeView | None:
    """Data for the figures of a volume; None if it never reached its working level."""
    receipt = row.receipt
    if receipt.shape is None or not receipt.working:
        return None
    try:
        pictures = run.read_preview(receipt.volume_id)
    except Exception as error:  # A damaged picture must not cost the page.
        _log.warning("%s: pictures of %s: %s", run.url, receipt.volume_id, error)
        pictures = {}
    return VolumeView(
        shape=tuple(receipt.shape),
        factors=tuple(receipt.working["factors"]),
        spacing=tuple(receipt.voxel_size_um or (1.0, 1.0, 1.0)),
        pictures=pictures,
        box=receipt.sample_box,
        crop_boxes=receipt.crop_boxes,
        specimens=[specimen.sample_box for specimen in receipt.specimens or ()],
        truth=row.truth,
        field_of_view=_field_of_view(receipt),
        profiles=receipt.profiles,
        stretches={axis: s for axis, s in receipt.stretches.items() if s},
        sample_profiles=receipt.refined.get("profiles", {}),
        certainty=receipt.face_confidence or (),
    )


def _field_of_view(receipt: VolumeRecord) -> FieldOfView:
    return FieldOfView.from_json(receipt.working.get("field_of_view") or {})
