"""Rows of the benchmark's table, from the scores of single volumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from ctray.core.geometry import Box
from ctray.evaluate.against_truth import Evaluation
from ctray.evaluate.scoring import CROP_METHOD, OWN_METHOD, Row
from ctray.evaluate.truth import Truth
from ctray.records.volume_record import VolumeRecord

MAIN = "main"
ALL = "all"
# Savings of crops are promised if the true box takes this fraction of the volume.
FILL_RANGE = (0.2, 0.3)
FILL_SCENE = "fill 20-30%"
# Fraction of the sample's voxels that a crop may lose, if the receipts state no other fraction.
MAX_LOSS = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A group of volumes, and the variant of the method.

    Parameters
    ----------
    archive
        Name of the archive: the volumes of one training.
    variant
        ``main``, or the name of the change to the method.
    family, scene
        Family and scene of the volumes; ``all`` for a row over several.
    """

    archive: str
    variant: str
    family: str
    scene: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeScore:
    """Scores of one method on one volume; None means that there is no value.

    Parameters
    ----------
    group, volume_id, method, supervised
        Identity of the score. A supervised method used the truth of this volume.
    outcome
        Outcome as in `ctray.evaluate.scoring.BoxScore`. For ctray also ``uncertain`` and
        ``failed``, with or without a sample.
    error_voxels, error_of_side, error_of_box, error_apart_voxels
        Mean error of the scored faces; `error_apart_voxels` is the mean error of the other faces.
    iou, lost, saved
        Scores of the box: intersection over union, fraction of the sample's voxels outside the box,
        and fraction of the volume's voxels outside it.
    crop_lost, crop_saved
        `lost` and `saved` of the crop; None without crops, and for baselines.
    fill
        Fraction of the volume that the true box takes.
    seconds, bytes_read
        Wall time and bytes of localizing and cropping; only for ctray.
    max_loss, coverage
        Promise in the receipt: the crop loses at most `max_loss` at the rate `coverage`.
    """

    group: Group
    volume_id: str
    method: str
    supervised: bool
    outcome: str
    error_voxels: float | None
    error_of_side: float | None
    error_of_box: float | None
    error_apart_voxels: float | None
    iou: float | None
    lost: float | None
    saved: float | None
    crop_lost: float | None = None
    crop_saved: float | None = None
    fill: float | None = None
    seconds: float | None = None
    bytes_read: int | None = None
    max_loss: float | None = None
    coverage: float | None = None

    def to_row(self) -> Row:
        """Flat row of plain values, for JSON and Parquet."""
        return _flat(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """Summary of one method over one group; None if nothing could be measured.

    Parameters
    ----------
    group, method, supervised, num_volumes
        Identity of the row, and its number of volumes.
    num_located, num_missing, num_empty, num_false_alarms, num_uncertain, num_failed
        Number of volumes by outcome. For ctray, ``missing`` is a sample that was called empty.
    mean_voxels, worst_voxels, mean_of_side, worst_of_side, mean_of_box, mean_apart_voxels
        Mean and worst error over the volumes. The error of a volume is the mean over its faces.
    mean_iou, mean_lost, worst_lost, mean_saved
        Mean and worst scores of the boxes.
    mean_crop_lost, worst_crop_lost, mean_crop_saved
        Mean and worst scores of the crops.
    observed_coverage, stated_coverage, max_loss
        Fraction of the located volumes whose crop loses at most `max_loss`, and the rate that the
        receipts state.
    mean_seconds, mean_bytes_read
        Mean per volume.
    """

    group: Group
    method: str
    supervised: bool
    num_volumes: int
    num_located: int
    num_missing: int
    num_empty: int
    num_false_alarms: int
    num_uncertain: int
    num_failed: int
    mean_voxels: float | None
    worst_voxels: float | None
    mean_of_side: float | None
    worst_of_side: float | None
    mean_of_box: float | None
    mean_apart_voxels: float | None
    mean_iou: float | None
    mean_lost: float | None
    worst_lost: float | None
    mean_saved: float | None
    mean_crop_lost: float | None
    worst_crop_lost: float | None
    mean_crop_saved: float | None
    observed_coverage: float | None
    stated_coverage: float | None
    max_loss: float | None
    mean_seconds: float | None
    mean_bytes_read: float | None

    def to_row(self) -> Row:
        """Flat row of plain values, for JSON and Parquet."""
        return _flat(self)


def volume_scores(
    group: Group,
    evaluation: Evaluation,
    receipts: Sequence[VolumeRecord],
    truths: Mapping[str, Truth],
) -> list[VolumeScore]:
    """Scores of one group's volumes. Scores of crops are added to the scores of ctray's boxes."""
    by_id = {receipt.volume_id: receipt for receipt in receipts}
    crops = {s.volume_id: s for s in evaluation.table.scores if s.method == CROP_METHOD}
    found = []
    for score in evaluation.table.scores:
        if score.method == CROP_METHOD:
            continue
        own = score.method == OWN_METHOD
        receipt = by_id[score.volume_id]
        crop = crops.get(score.volume_id) if own else None
        flagged = own and receipt.status in ("uncertain", "failed")
        found.append(
            VolumeScore(
                group=group,
                volume_id=score.volume_id,
                method=score.method,
                supervised=score.method in evaluation.supervised,
                outcome=receipt.status if flagged else score.outcome,
                error_voxels=score.error_voxels,
                error_of_side=score.error_of_volume,
                error_of_box=score.error_of_box,
                error_apart_voxels=score.error_apart_voxels,
                iou=score.iou,
                lost=score.sample_lost,
                saved=score.storage_saved,
                crop_lost=crop.sample_lost if crop else None,
                crop_saved=crop.storage_saved if crop else None,
                fill=_fill(truths[score.volume_id]),
                seconds=receipt.seconds if own else None,
                bytes_read=receipt.bytes_read if own else None,
                max_loss=receipt.max_loss if own else None,
                coverage=receipt.coverage if own else None,
            )
        )
    return found


def table_rows(scores: Sequence[VolumeScore]) -> list[TableRow]:
    """Rows of every group, and rows over each family, each scene and each archive.

    Methods keep the order of their first score. Rows over several groups come last. A row over a
    single group is left out.
    """
    parts: dict[tuple[Group, str], list[VolumeScore]] = {}
    for score in scores:
        parts.setdefault((score.group, score.method), []).append(score)
    for score in scores:
        for group in _wider(score.group, score.fill):
            parts.setdefault((group, score.method), []).append(score)
    rows = []
    for (group, method), members in parts.items():
        whole = ALL in (group.family, group.scene)
        if whole and len({score.group for score in members}) < 2:
            continue
        rows.append(summarized(group, method, members))
    return rows


def summarized(group: Group, method: str, scores: Sequence[VolumeScore]) -> TableRow:
    """Row of the volumes `scores` of one method."""
    outcomes = [s.outcome for s in scores]

    def column(name: str) -> list[float]:
        return [v for s in scores if (v := getattr(s, name)) is not None]

    max_loss = _mean(column("max_loss"))
    return TableRow(
        group=group,
        method=method,
        supervised=any(s.supervised for s in scores),
        num_volumes=len(scores),
        num_located=outcomes.count("located"),
        num_missing=outcomes.count("missing"),
        num_empty=outcomes.count("empty"),
        num_false_alarms=outcomes.count("false-alarm"),
        num_uncertain=outcomes.count("uncertain"),
        num_failed=outcomes.count("failed"),
        mean_voxels=_mean(column("error_voxels")),
        worst_voxels=_worst(column("error_voxels")),
        mean_of_side=_mean(column("error_of_side")),
        worst_of_side=_worst(column("error_of_side")),
        mean_of_box=_mean(column("error_of_box")),
        mean_apart_voxels=_mean(column("error_apart_voxels")),
        mean_iou=_mean(column("iou")),
        mean_lost=_mean(column("lost")),
        worst_lost=_worst(column("lost")),
        mean_saved=_mean(column("saved")),
        mean_crop_lost=_mean(column("crop_lost")),
        worst_crop_lost=_worst(column("crop_lost")),
        mean_crop_saved=_mean(column("crop_saved")),
        observed_coverage=observed_coverage(scores),
        stated_coverage=_mean(column("coverage")),
        max_loss=MAX_LOSS if max_loss is None else max_loss,
        mean_seconds=_mean(column("seconds")),
        mean_bytes_read=_mean(column("bytes_read")),
    )


def observed_coverage(scores: Sequence[VolumeScore], max_loss: float = MAX_LOSS) -> float | None:
    """Fraction of the located volumes whose crop loses at most the stated fraction.

    Parameters
    ----------
    scores
        Scores of ctray. Volumes that are not located, or whose loss is unknown, are ignored.
    max_loss
        Fraction of the sample's voxels that may be lost, if the receipt states no other fraction.

    Returns
    -------
    Fraction in [0, 1], or None if there is no such volume.
    """
    kept = [
        s.crop_lost <= (max_loss if s.max_loss is None else s.max_loss)
        for s in scores
        if s.outcome == "located" and s.crop_lost is not None
    ]
    return sum(kept) / len(kept) if kept else None


def _flat(entry: VolumeScore | TableRow) -> Row:
    """Fields of the group, then the entry's own."""
    row: Row = asdict(entry.group)
    return row | {n: getattr(entry, n) for n in entry.__dataclass_fields__ if n != "group"}


def _fill(truth: Truth) -> float | None:
    if truth.box is None:
        return None
    return truth.box.num_voxels / Box.whole(truth.shape).num_voxels


def _wider(group: Group, fill: float | None) -> Iterator[Group]:
    """Groups of several scenes or families that a volume also belongs to."""
    names = [(group.family, ALL), (ALL, group.scene), (ALL, ALL)]
    if fill is not None and FILL_RANGE[0] <= fill <= FILL_RANGE[1]:
        names.append((ALL, FILL_SCENE))
    for family, scene in names:
        yield Group(archive=group.archive, variant=group.variant, family=family, scene=scene)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _worst(values: Sequence[float]) -> float | None:
    return max(values) if values else None
