"""Rows of the benchmark: sums over volumes whose scores are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ctray.core.geometry import Box
from ctray.evaluate.against_truth import evaluate_receipts
from ctray.evaluate.baselines import BaselineResult
from ctray.evaluate.benchmark_table import (
    ALL,
    FILL_SCENE,
    Group,
    VolumeScore,
    observed_coverage,
    summarized,
    table_rows,
    volume_scores,
)
from ctray.evaluate.truth import Truth
from ctray.records.volume_record import VolumeRecord

SHAPE = (20, 20, 20)
TRUE_BOX = Box.from_ranges([[4, 16], [5, 15], [3, 17]])
GROUP = Group(archive="phantoms", variant="main", family="fish", scene="easy")


def score(**values: Any) -> VolumeScore:
    plain: dict[str, Any] = {
        **dict.fromkeys(["error_voxels", "error_of_side", "error_of_box", "error_apart_voxels"]),
        **dict.fromkeys(["iou", "lost", "saved"]),
        "group": GROUP,
        "volume_id": "v",
        "method": "ctray",
        "supervised": False,
        "outcome": "located",
    }
    return VolumeScore(**(plain | values))


def receipt(
    name: str, box: Box | None, status: Any = "located", crop: Box | None = None
) -> VolumeRecord:
    return VolumeRecord(
        volume_id=name,
        source_url=f"{name}.zarr",
        status=status,
        sample_box=box,
        crop_box=crop,
        seconds=3.0,
        bytes_read=700,
    )


def test_scores_join_box_and_crop_and_know_what_was_flagged() -> None:
    truths = {n: Truth(volume_id=n, shape=SHAPE, box=TRUE_BOX) for n in ("good", "unsure", "lost")}
    truths["void"] = Truth(volume_id="void", shape=SHAPE, box=None)
    found = Box.from_ranges([[4, 16], [5, 15], [6, 17]])
    receipts = [
        receipt("good", found, crop=Box.whole(SHAPE)),
        receipt("unsure", found, "uncertain"),
        receipt("lost", None, "empty"),
        receipt("void", None, "empty"),
    ]
    boxes = {"good": TRUE_BOX, "unsure": TRUE_BOX, "lost": None, "void": TRUE_BOX}
    baseline = BaselineResult(
        method="raw-best", supervised=True, variant="raw, all", boxes=boxes, thresholds={}
    )
    evaluation = evaluate_receipts(receipts, truths, [baseline])
    scores = volume_scores(GROUP, evaluation, receipts, truths)
    own = {s.volume_id: s for s in scores if s.method == "ctray"}
    assert {n: s.outcome for n, s in own.items()} == {
        **{"good": "located", "unsure": "uncertain"},
        **{"lost": "missing", "void": "empty"},
    }
    assert own["good"].error_voxels == 3 / 6
    assert own["good"].error_of_side == pytest.approx(3 / 6 / 20)
    assert own["good"].crop_saved == 0
    assert own["good"].fill == 12 * 10 * 14 / 20**3
    assert (own["good"].seconds, own["good"].bytes_read) == (3, 700)
    others = {s.volume_id: s for s in scores if s.method == "raw-best"}
    assert len(scores) == 8, "crops are no method of their own"
    assert others["void"].outcome == "false-alarm"
    assert others["good"].supervised
    assert others["good"].seconds is None


def test_row_has_means_worst_and_counts() -> None:
    scores = [
        score(error_voxels=1.0, error_of_side=0.01, crop_lost=0.0, crop_saved=0.7, lost=0.02),
        score(error_voxels=4.0, error_of_side=0.05, crop_lost=0.004, crop_saved=0.5, lost=0.0),
        score(outcome="missing", error_voxels=7.0, error_of_side=0.3),
        score(outcome="empty", seconds=6.0),
        score(outcome="uncertain", seconds=2.0),
        score(outcome="false-alarm"),
    ]
    row = summarized(GROUP, "ctray", scores)
    counts = (row.num_located, row.num_missing, row.num_empty, row.num_false_alarms)
    assert (row.num_volumes, *counts, row.num_uncertain) == (6, 2, 1, 1, 1, 1)
    assert (row.mean_voxels, row.worst_voxels) == (4.0, 7.0)
    assert row.mean_of_side == pytest.approx(0.12)
    assert (row.mean_crop_lost, row.worst_crop_lost) == (0.002, 0.004)
    assert row.mean_crop_saved == pytest.approx(0.6)
    assert row.mean_seconds == 4.0
    assert row.observed_coverage == 0.5
    assert row.stated_coverage is None


def test_coverage_takes_what_the_receipts_state() -> None:
    lost = [0.0, 0.002, 0.004]
    assert observed_coverage([score(crop_lost=v) for v in lost]) == pytest.approx(1 / 3)
    stated = [score(crop_lost=v, max_loss=0.003, coverage=0.9) for v in lost]
    assert observed_coverage(stated) == pytest.approx(2 / 3)
    assert summarized(GROUP, "ctray", stated).stated_coverage == pytest.approx(0.9)
    # What was flagged promises nothing.
    assert observed_coverage([score(outcome="uncertain", crop_lost=0.0)]) is None


def test_rows_over_families_scenes_and_all() -> None:
    groups = [
        replace(GROUP, family=family, scene=scene)
        for family in ("fish", "embryo")
        for scene in ("easy", "hard")
    ]
    errors = [0.01, 0.02, 0.03, 0.05]
    scores = [
        score(group=g, error_of_side=e, fill=0.25 if e < 0.025 else 0.1)
        for g, e in zip(groups, errors, strict=True)
    ]
    scores += [replace(s, group=replace(s.group, variant="otsu")) for s in scores[:1]]
    means = {
        (r.group.variant, r.group.family, r.group.scene): round(r.mean_of_side or 0, 4)
        for r in table_rows(scores)
    }
    assert means == {
        **{("main", g.family, g.scene): e for g, e in zip(groups, errors, strict=True)},
        ("main", "fish", ALL): 0.015,
        ("main", "embryo", ALL): 0.04,
        ("main", ALL, "easy"): 0.02,
        ("main", ALL, "hard"): 0.035,
        ("main", ALL, ALL): 0.0275,
        ("main", ALL, FILL_SCENE): 0.015,
        ("otsu", "fish", "easy"): 0.01,
    }
