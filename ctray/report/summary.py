"""The numbers of a run: status of every volume, sizes, training, scores."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ctray.archive.catalog import CatalogEntry, read_catalog, read_coverage
from ctray.config import (
    RotationConfig,
    RunConfig,
    parse_config,
    random_displacement,
    recorded_config,
)
from ctray.core.errors import CtrayError, NotFoundError
from ctray.core.geometry import FACES, Box
from ctray.evaluate.scoring import CROP_METHOD, OWN_METHOD
from ctray.localization.promise import calibration_of, why_not_calibrated
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

T = TypeVar("T")

# In the order of the page: volumes that need review come first.
STATUSES = ("failed", "uncertain", "empty", "located", "pending")


@dataclass(frozen=True, kw_only=True)
class VolumeRow:
    """One volume of the run, as the page shows it.

    Parameters
    ----------
    receipt
        Receipt of the volume. If it has none yet, a receipt made from its catalog entry.
    status
        Status in the receipt; `pending` if there is none.
    bytes_before, bytes_after
        Uncompressed bytes of level 0, of the volume and of its crop. None if unknown, or if there
        is no crop.
    bytes_stored
        Bytes of the crop's files: compressed, with its pyramid.
    error_voxels, error_of_volume
        Mean absolute error of the box, in voxels and as a fraction of the volume's side. None if
        the run was not scored.
    truth
        True box; None if the run was not scored.
    """

    receipt: VolumeRecord
    status: str
    bytes_before: int | None = None
    bytes_after: int | None = None
    bytes_stored: int | None = None
    error_voxels: float | None = None
    error_of_volume: float | None = None
    truth: Box | None = None

    @property
    def volume_id(self) -> str:
        """Name of the volume."""
        return self.receipt.volume_id

    @property
    def least_certain_face(self) -> str | None:
        """Name of the least certain face, such as `z0`; its certainty is the confidence."""
        faces = self.receipt.face_confidence
        return FACES[faces.index(min(faces))] if faces else None

    @property
    def saved(self) -> float | None:
        """Fraction of level 0 outside the crop."""
        if not self.bytes_before or self.bytes_after is None:
            return None
        return 1 - self.bytes_after / self.bytes_before


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Sizes of a group of volumes.

    Parameters
    ----------
    num_volumes
        Number of volumes.
    num_unknown
        Number of volumes of unknown size; the sums leave them out.
    before, after
        Uncompressed bytes of level 0. A volume without a crop counts whole in `after`.
    stored
        Bytes of the crops' files.
    """

    num_volumes: int
    num_unknown: int
    before: int
    after: int
    stored: int

    @property
    def saved(self) -> float | None:
        """Fraction of level 0 outside the crops."""
        return 1 - self.after / self.before if self.before else None


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Everything that the page shows, except pictures.

    Parameters
    ----------
    title, archive
        Short name, and URL of the archive if the run names it.
    rows
        Volumes; those that need review come first.
    metrics, guessing
        Rows of training metrics, and the accuracy or mean displacement of a random guess.
    facts
        Method, training, model and versions, as (name, value).
    scores
        One row per method, from `scores.json`.
    notes
        Files that could not be read, one line each.
    coverage
        Contents of the archive that are not in the run, one line each.
    not_calibrated
        Reason why crops are `not calibrated`, in one line; None if every crop is calibrated.
    """

    title: str
    archive: str | None
    rows: list[VolumeRow]
    metrics: list[dict[str, float]] = field(default_factory=list)
    guessing: float = 1 / RotationConfig().num_classes
    facts: list[tuple[str, str]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    coverage: list[str] = field(default_factory=list)
    not_calibrated: str | None = None

    @property
    def promises(self) -> dict[str, int]:
        """Number of located volumes by promise, the most frequent promise first."""
        promised = (r.receipt.promise for r in self.rows if r.status == "located")
        return dict(Counter(p for p in promised if p is not None).most_common())

    @property
    def counts(self) -> dict[str, int]:
        """Number of volumes by status, in the order of `STATUSES`; only statuses that occur."""
        counted = Counter(row.status for row in self.rows)
        return {status: counted[status] for status in STATUSES if counted[status]}

    def sizes(self, cropped: bool | None = None) -> Sizes:
        """Sizes of the volumes with a crop (True), without one (False), or of all (None)."""
        rows = [r for r in self.rows if cropped in (None, r.bytes_after is not None)]
        known = [r for r in rows if r.bytes_before is not None]
        return Sizes(
            num_volumes=len(rows),
            num_unknown=len(rows) - len(known),
            before=sum(r.bytes_before or 0 for r in known),
            after=sum(
                (r.bytes_before if r.bytes_after is None else r.bytes_after) or 0 for r in known
            ),
            stored=sum(r.bytes_stored or 0 for r in known),
        )

    @property
    def last_metrics(self) -> dict[str, float]:
        """Last row of training metrics; later rows may be of held-out volumes only."""
        return next((row for row in reversed(self.metrics) if "loss" in row), self.metrics[-1])


def summarize_run(run: RunFolder) -> RunSummary:
    """Gather the numbers of a run. A damaged file becomes a note, not an error.

    Raises
    ------
    NotFoundError
        If the folder has neither receipts nor a catalog.
    """
    notes: list[str] = []
    manifest = _json(run.manifest, notes)
    scores = _json(run.at("scores.json"), notes)
    receipts = run.receipts()
    catalog: list[CatalogEntry] = _read(lambda: read_catalog(run.catalog), [], notes)
    if not receipts and not catalog:
        raise NotFoundError(
            f"{run.url} holds no run (no receipts, no catalog); start one with ctray run"
        )
    training, metrics = _training(run, notes)
    archive = manifest.get("archive")
    where = str(archive or run.url).rstrip("/")
    return RunSummary(
        title=where.rpartition("/")[2] or where,
        archive=str(archive) if archive else None,
        rows=sorted(_rows(receipts, catalog, scores), key=_urgency),
        metrics=metrics,
        guessing=_guessing(training.get("config") or manifest.get("config")),
        facts=_facts(manifest, training, receipts),
        scores=_score_rows(scores),
        not_calibrated=_why_not_calibrated(run, manifest, receipts, notes),
        notes=notes,
        coverage=_read(lambda: read_coverage(run.catalog).lines(), [], notes),
    )


def choose_pictured(rows: Sequence[VolumeRow], limit: int = 60, seed: int = 0) -> list[VolumeRow]:
    """Rows that get pictures, in their order.

    Up to `limit` rows, all get pictures. Of more rows, these do: the first `limit` rows that
    failed or are uncertain, the least certain located rows (a third of `limit`), and seeded
    samples of the other located rows (a third) and of the empty rows (a sixth).
    """
    if len(rows) <= limit:
        return list(rows)
    urgent = [r for r in rows if r.status in ("failed", "uncertain")][:limit]
    located = [r for r in rows if r.status == "located"]
    least, others = located[: limit // 3], located[limit // 3 :]
    empty = [r for r in rows if r.status == "empty"]
    draw = random.Random(seed)  # noqa: S311 - a sample of pictures is no secret
    sample = draw.sample(others, min(limit // 3, len(others)))
    sample += draw.sample(empty, min(limit // 6, len(empty)))
    chosen = {r.volume_id for r in [*urgent, *least, *sample]}
    return [r for r in rows if r.volume_id in chosen]


def _urgency(row: VolumeRow) -> tuple[int, float, str]:
    confidence = row.receipt.confidence
    return STATUSES.index(row.status), 1.0 if confidence is None else confidence, row.volume_id


def _read(read: Callable[[], T], missing: T, notes: list[str]) -> T:
    """Result of `read`; `missing` if there is no file, and also a note if the file is damaged."""
    try:
        return read()
    except NotFoundError:
        return missing
    except CtrayError as error:
        notes.append(str(error))
        return missing


def _json(url: str, notes: list[str]) -> dict[str, Any]:
    """Object at `url`; empty if there is none."""
    data: Any = _read(lambda: store.read_json(url), {}, notes)
    return data if isinstance(data, dict) else {}


def _training(run: RunFolder, notes: list[str]) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Manifest of the checkpoint and rows of metrics; empty if the run has no checkpoint."""
    if not store.exists(run.checkpoint):
        return {}, []
    # It imports torch, which a run without a checkpoint does not need.
    from ctray.learn.pretext.checkpoint import MANIFEST, read_metrics

    manifest = _json(store.join(run.checkpoint, MANIFEST), notes)
    try:
        return manifest, read_metrics(run.checkpoint) if manifest else []
    except (CtrayError, OSError, ValueError, KeyError) as error:
        notes.append(f"{run.checkpoint}: training metrics cannot be read ({error})")
        return manifest, []


def _why_not_calibrated(
    run: RunFolder, manifest: dict[str, Any], receipts: Sequence[VolumeRecord], notes: list[str]
) -> str | None:
    unstated = [r for r in receipts if r.status == "located" and r.promise == "not calibrated"]
    if not unstated:
        return None
    try:
        calibration = calibration_of(run)
        config = recorded_config(manifest.get("config") or {}, source=run.manifest)
    except CtrayError as error:
        notes.append(str(error))
        return "the calibration or the settings of the run cannot be read"
    return why_not_calibrated(unstated[0].box_settings_digest, config, calibration)


def _guessing(config: Any) -> float:
    try:
        parsed = parse_config(config) if isinstance(config, dict) else RunConfig()
    except CtrayError:
        parsed = RunConfig()
    match parsed.task:
        case "rotation":
            return 1 / parsed.rotation.num_classes
        case "sorting":
            return random_displacement(parsed.sorting.num_slices)


def _facts(
    manifest: dict[str, Any], training: dict[str, Any], receipts: list[VolumeRecord]
) -> list[tuple[str, str]]:
    digests = dict.fromkeys(
        str(d) for d in [training.get("digest"), *(r.model_digest for r in receipts)] if d
    )
    methods = dict.fromkeys(r.method for r in receipts if r.method)
    versions = {
        name: manifest.get(f"{name}_version") or training.get(f"{name}_version")
        for name in ("ctray", "torch")
    }
    versions["ctray"] = versions["ctray"] or next(
        (r.ctray_version for r in receipts if r.ctray_version), None
    )
    facts = [
        ("Method", ", ".join(methods)),
        ("Training", f"{training['step']:,} steps" if training.get("step") else ""),
        ("Model SHA-256", ", ".join(digests)),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions.items() if number)),
    ]
    return [(name, value) for name, value in facts if value]


def _rows(
    receipts: list[VolumeRecord], catalog: list[CatalogEntry], scores: dict[str, Any]
) -> list[VolumeRow]:
    own = {
        str(row.get("volume_id")): row
        for row in scores.get("volumes", [])
        if isinstance(row, dict) and row.get("method") == OWN_METHOD
    }
    rows = [_row(receipt, receipt.status, own.get(receipt.volume_id, {})) for receipt in receipts]
    known = {receipt.volume_id for receipt in receipts}
    for entry in catalog:
        if entry.volume_id not in known:
            status = "failed" if entry.status == "failed" else "pending"
            rows.append(_row(_as_receipt(entry), status, {}))
    return rows


def _row(receipt: VolumeRecord, status: str, score: dict[str, Any]) -> VolumeRow:
    before = receipt.bytes_total
    after = None
    boxes = receipt.crop_boxes
    if boxes and before and receipt.shape:
        voxels = sum(box.num_voxels for box in boxes)
        after = round(before * voxels / max(1, math.prod(receipt.shape)))
    faces = [int(v) for face in FACES if (v := score.get(f"true_{face}")) is not None]
    truth = None
    if len(faces) == len(FACES):
        truth = Box.from_ranges(list(zip(faces[::2], faces[1::2], strict=True)))
    return VolumeRow(
        receipt=receipt,
        status=status,
        bytes_before=before,
        bytes_after=after,
        bytes_stored=receipt.bytes_written if after is not None else None,
        error_voxels=score.get("error_voxels"),
        error_of_volume=score.get("error_of_volume"),
        truth=truth,
    )


def _as_receipt(entry: CatalogEntry) -> VolumeRecord:
    return VolumeRecord(
        volume_id=entry.volume_id,
        source_url=entry.url,
        status="failed",
        reason=entry.reason,
        notes=entry.notes,
        shape=list(entry.shape) if entry.shape else None,
        dtype=entry.dtype,
        voxel_size_um=list(entry.voxel_size.um) if entry.voxel_size else None,
        bytes_total=entry.num_bytes,
    )


def _score_rows(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Summary rows with quantiles relative to the volume's side; the best method comes first."""
    volumes = [row for row in scores.get("volumes", []) if isinstance(row, dict)]
    rows = []
    for row in scores.get("summary", []):
        found = [v.get("error_of_volume") for v in volumes if v.get("method") == row.get("method")]
        relative = [float(value) for value in found if value is not None]
        names = ("median_of_volume", "p90_of_volume", "worst_of_volume")
        quantiles = np.quantile(relative, (0.5, 0.9, 1.0)).tolist() if relative else [None] * 3
        rows.append({**row, **dict(zip(names, quantiles, strict=True))})
    return sorted(rows, key=_rank)


def _rank(row: dict[str, Any]) -> tuple[int, float]:
    """Own box, own crop, then the baselines by mean error."""
    own = (OWN_METHOD, CROP_METHOD)
    if row.get("method") in own:
        return own.index(row["method"]), 0.0
    error = row.get("mean_voxels")
    return len(own), math.inf if error is None else error
