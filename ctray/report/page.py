"""The report of a run: one HTML page that needs nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ctray.core.errors import NotFoundError
from ctray.preprocess.field_of_view import FieldOfView
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.report import sections
from ctray.report.encoding import png_bytes
from ctray.report.figures import VolumeView, overview_figure
from ctray.report.head import head_part
from ctray.report.style import CSS
from ctray.report.summary import RunSummary, VolumeRow, choose_pictured, summarize_run
from ctray.report.text import escape
from ctray.storage import store

_log = logging.getLogger(__name__)

_FILES = ("localizations.parquet", "catalog.parquet", "scores.json", "run.json")


def write_report(run: RunFolder, *, max_pictured: int = 60, max_rows: int = 2000) -> str:
    """Write `report/index.html`, and `report/located.png` of a typical located volume.

    Parameters
    ----------
    run
        Folder of the run, finished or not.
    max_pictured
        With more volumes than this, only those that need a look, the least certain ones and a
        sample of the others get pictures.
    max_rows
        Rows of the table of volumes.

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
    if typical is not None:
        view = _view(run, typical)
        if view is not None and view.pictures:
            picture = png_bytes(overview_figure(view), scale=1.5)
            store.write_bytes(run.at("report", "located.png"), picture)
    return run.report


def figure_located(run: RunFolder, volume_id: str) -> bytes:
    """PNG of one volume: three projections with its box, and its certainty profiles.

    Raises
    ------
    NotFoundError
        If the volume has no receipt, or no pictures were kept of it.
    """
    receipt = run.read_receipt(volume_id)
    view = None
    if receipt is not None:
        view = _view(run, VolumeRow(receipt=receipt, status=receipt.status))
    if view is None or not view.pictures:
        raise NotFoundError(f"volume {volume_id!r} has no pictures in {run.url}; localize it first")
    return png_bytes(overview_figure(view), scale=1.5)


def _page(run: RunFolder, summary: RunSummary, pictured: Sequence[VolumeRow], max_rows: int) -> str:
    scored = any(row.truth is not None for row in summary.rows)
    shown = {row.volume_id for row in pictured}
    table_url = "../localizations.parquet"
    parts = [
        head_part(summary),
        sections.notes_part(summary.notes),
        sections.scores_part(summary),
        sections.sizes_part(summary),
        sections.coverage_part(summary.coverage),
        sections.model_part(summary, _links(run)),
        sections.volumes_part(summary.rows, shown, max_rows=max_rows, table_url=table_url),
        "<h2>Pictures</h2>",
        sections.key_part(
            scored=scored,
            mapped=any(r.receipt.map_url for r in pictured),
            several=any(r.receipt.specimens for r in pictured),
            column=any(_field_of_view(r.receipt).column for r in pictured),
        ),
        *(sections.volume_part(row, _view(run, row)) for row in pictured),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(summary.title)} – ctray report</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _links(run: RunFolder) -> list[tuple[str, str]]:
    """Addresses, relative to the page, and names of the run's tables that exist."""
    return [(f"../{name}", name) for name in _FILES if store.exists(run.at(name))]


def _typical(rows: Sequence[VolumeRow]) -> VolumeRow | None:
    """Located volume of median confidence: neither the best nor the worst."""
    located = [row for row in rows if row.status == "located"]
    return located[len(located) // 2] if located else None


def _view(run: RunFolder, row: VolumeRow) -> VolumeView | None:
    """What can be drawn of a volume; None where nothing can."""
    receipt = row.receipt
    try:
        pictures = run.read_preview(receipt.volume_id)
    except Exception as error:  # A damaged picture must not cost the page.
        _log.warning("%s: pictures of %s: %s", run.url, receipt.volume_id, error)
        pictures = {}
    working_shape = receipt.working.get("shape")
    if not working_shape and {"projection-z", "projection-y"} <= pictures.keys():
        working_shape = [pictures["projection-y"].shape[0], *pictures["projection-z"].shape]
    if not working_shape:
        return None
    shape = tuple(receipt.shape or working_shape)
    factors = receipt.working.get("factors") or [
        -(-n // w) for n, w in zip(shape, working_shape, strict=True)
    ]
    return VolumeView(
        shape=shape,
        factors=tuple(factors),
        spacing=_spacing(receipt),
        pictures=pictures,
        box=receipt.sample_box,
        crop_boxes=receipt.crop_boxes,
        specimens=[specimen.sample_box for specimen in receipt.specimens or ()],
        truth=row.truth,
        field_of_view=_field_of_view(receipt),
        profiles=receipt.profiles,
        stretches={axis: s for axis, s in receipt.stretches.items() if s},
        refined=receipt.refined,
        certainty=receipt.face_confidence or (),
    )


def _field_of_view(receipt: VolumeRecord) -> FieldOfView:
    return FieldOfView.from_json(receipt.working.get("field_of_view") or {})


def _spacing(receipt: VolumeRecord) -> tuple[float, ...]:
    return tuple(receipt.voxel_size_um) if receipt.voxel_size_um else (1.0, 1.0, 1.0)
