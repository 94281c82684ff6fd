"""A run compared with the truth: ctray's boxes, its crops, and baselines on the same volumes."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctray.config import PreprocessConfig, recorded_config
from ctray.core.errors import NotFoundError
from ctray.core.geometry import Box, Triple, as_triple
from ctray.evaluate.baseline_maps import BaselineArrays
from ctray.evaluate.baselines import BaselineCase, BaselineResult, run_baselines
from ctray.evaluate.scoring import (
    CROP_METHOD,
    OWN_METHOD,
    MethodSummary,
    Row,
    ScoreTable,
    score_methods,
)
from ctray.evaluate.specimen_scores import SpecimenScores, score_specimens
from ctray.evaluate.truth import Truth, read_truths
from ctray.preprocess.prepare import is_constant, prepare
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.working import read_working

# Prepared working levels that stay in memory between the passes of the baselines.
CACHE_BYTES = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores of a run.

    Parameters
    ----------
    table
        Scores of the methods: ``ctray`` (the box), ``ctray-crop`` (the crop with its margins; only
        if crops were written), and the baselines.
    baselines
        Results of the baselines; empty if they were not run.
    specimens
        Scores of single specimens, if the run searched for them and the truth contains them.
    """

    table: ScoreTable
    baselines: tuple[BaselineResult, ...] = ()
    specimens: SpecimenScores | None = None

    @property
    def supervised(self) -> frozenset[str]:
        """Methods that used the truth of the volumes on which they are scored."""
        return frozenset(r.method for r in self.baselines if r.supervised)

    def ranked(self) -> tuple[MethodSummary, ...]:
        """Summaries: ctray first, then the baselines from best to worst."""
        own = (OWN_METHOD, CROP_METHOD)
        rows = self.table.summaries()
        rest = sorted(
            (r for r in rows if r.method not in own),
            key=lambda r: float("inf") if r.mean_voxels is None else r.mean_voxels,
        )
        return (*(r for r in rows if r.method in own), *rest)

    def to_json(self) -> dict[str, Any]:
        """Plain values: one row per method, with ``supervised`` and ``variant``, and per volume."""
        variants = {r.method: r.variant for r in self.baselines}
        document = self.table.to_json()
        document["summary"] = [
            {
                **summary.to_row(),
                "supervised": summary.method in self.supervised,
                "variant": variants.get(summary.method),
            }
            for summary in self.ranked()
        ]
        if self.specimens is not None:
            document["specimens"] = self.specimens.to_json()
        return document

    def to_rows(self) -> list[Row]:
        """One flat row per method and volume, with ``supervised``."""
        rows = self.table.to_rows()
        return [{**row, "supervised": row["method"] in self.supervised} for row in rows]


def evaluate_run(
    run: RunFolder,
    truth_url: str,
    *,
    baselines: bool = True,
    held_out: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score the boxes of a run. A volume that failed counts as a volume without a box.

    Parameters
    ----------
    run
        Run folder. Volumes without a receipt are ignored.
    truth_url
        See `ctray.evaluate.truth.read_truths`.
    baselines
        Whether to also run the baselines. This reads the working level of every volume.
    held_out
        Score only volumes that the encoder was not trained on.
    progress
        Called with (done, total) while the baselines run.

    Raises
    ------
    NotFoundError
        If the run has no receipt, there is no truth, or they share no volume.
    GeometryError
        If a truth belongs to another volume.
    """
    receipts = run.receipts()
    if not receipts:
        raise NotFoundError(f"{run.url} has no receipts; run ctray run or ctray localize first")
    truths = read_truths(truth_url)
    if held_out:
        trained = run.training_ids()
        receipts = [r for r in receipts if r.volume_id not in trained]
        truths = {name: truth for name, truth in truths.items() if name not in trained}
        if not receipts:
            raise NotFoundError(
                f"{run.url} trained on all of its volumes; set train.max_volumes below their number"
            )
    results: tuple[BaselineResult, ...] = ()
    if baselines:
        results = find_baselines(receipts, truths, _preprocess_of(run), progress=progress)
    return evaluate_receipts(receipts, truths, results)


def find_baselines(
    receipts: Sequence[VolumeRecord],
    truths: dict[str, Truth],
    config: PreprocessConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[BaselineResult, ...]:
    """Run the baselines on the readable volumes among `receipts` that have a truth."""
    scored = [r for r in receipts if r.volume_id in truths]
    cases = baseline_cases(scored, truths, config)
    return run_baselines(cases, progress=progress) if cases else ()


def evaluate_receipts(
    receipts: Sequence[VolumeRecord],
    truths: dict[str, Truth],
    baselines: Sequence[BaselineResult] = (),
) -> Evaluation:
    """Score receipts, and the boxes of baselines on the same volumes.

    Raises
    ------
    NotFoundError
        If receipts and truths share no volume.
    GeometryError
        If a truth belongs to another volume.
    """
    predictions = {OWN_METHOD: {r.volume_id: r.sample_box for r in receipts}}
    if any(r.crop_boxes for r in receipts if r.volume_id in truths):
        predictions[CROP_METHOD] = {r.volume_id: _crop_box(r) for r in receipts}
    for result in baselines:
        # Methods are compared on the same volumes, so an unreadable volume has no box for any.
        predictions[result.method] = {r.volume_id: result.boxes.get(r.volume_id) for r in receipts}
    table = score_methods(predictions, truths)
    specimens = score_specimens(receipts, truths)
    return Evaluation(table=table, baselines=tuple(baselines), specimens=specimens)


def write_evaluation(evaluation: Evaluation, run: RunFolder) -> tuple[str, str]:
    """Write ``scores.json`` and ``scores.parquet`` into the run; returns their URLs."""
    json_url, parquet_url = run.at("scores.json"), run.at("scores.parquet")
    store.write_json(json_url, evaluation.to_json())
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(evaluation.to_rows()), buffer)
    store.write_bytes(parquet_url, buffer.getvalue())
    return json_url, parquet_url


def baseline_cases(
    receipts: Sequence[VolumeRecord],
    truths: dict[str, Truth],
    config: PreprocessConfig,
    cache_bytes: int = CACHE_BYTES,
) -> list[BaselineCase]:
    """Volumes for the baselines, at the working level and in the field of view of the run.

    Parameters
    ----------
    receipts
        Receipts of volumes that have a truth. Receipts without a readable volume are left out.
    truths
        Truths by volume id.
    config
        Preprocessing settings of the run.
    cache_bytes
        Limit on prepared volumes in memory. Other volumes are read again in each pass.
    """
    cache = _Cache(config, cache_bytes)
    return [
        BaselineCase(
            truth=truths[receipt.volume_id],
            factors=_factors(receipt, config),
            load=cache.loader(receipt.cut_url),
        )
        for receipt in receipts
        if receipt.cut_url is not None
    ]


class _Cache:
    """Prepared working levels. The first ones that fit stay, since each pass reads all volumes."""

    def __init__(self, config: PreprocessConfig, max_bytes: int) -> None:
        self._config = config
        self._room = max_bytes
        self._kept: dict[str, BaselineArrays] = {}

    def loader(self, url: str) -> Callable[[], BaselineArrays]:
        """Function that returns the arrays of one volume."""
        return lambda: self._get(url)

    def _get(self, url: str) -> BaselineArrays:
        if url in self._kept:
            return self._kept[url]
        arrays = _prepared(url, self._config)
        parts = (arrays.raw, arrays.filled, arrays.inside)
        size = sum(part.nbytes for part in parts if part is not None)
        if size <= self._room:
            self._room -= size
            self._kept[url] = arrays
        return arrays


def _prepared(url: str, config: PreprocessConfig) -> BaselineArrays:
    working, factors = read_working(open_volume(url), config.working_size)
    if is_constant(working):
        return BaselineArrays(raw=working)
    prepared = prepare(working, factors, config)
    inside = prepared.field_of_view.mask(prepared.shape) & np.isfinite(working)
    return BaselineArrays(raw=working, filled=prepared.voxels, inside=inside)


def _factors(receipt: VolumeRecord, config: PreprocessConfig) -> Triple:
    """Level-0 voxels per voxel of the working level."""
    known = receipt.working.get("factors")
    if known is None:  # The volume is constant, so its receipt has no factors.
        _, known = read_working(open_volume(str(receipt.cut_url)), config.working_size)
    return as_triple(known, "factors")


def _crop_box(receipt: VolumeRecord) -> Box | None:
    """Box of the crop, or the box around all crops if there are several."""
    return functools.reduce(Box.union, receipt.crop_boxes) if receipt.crop_boxes else None


def _preprocess_of(run: RunFolder) -> PreprocessConfig:
    manifest = store.read_json(run.manifest)
    return recorded_config(manifest["config"], source=run.manifest).preprocess
