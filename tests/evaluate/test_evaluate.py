"""A run against the truth: who is scored on what, and what is written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ctray.config import RunConfig, load_config
from ctray.core.errors import NotFoundError
from ctray.core.geometry import Box
from ctray.evaluate.against_truth import (
    CROP_METHOD,
    baseline_cases,
    evaluate_run,
    write_evaluation,
)
from ctray.evaluate.phantom_archive import PhantomRecord, write_phantoms
from ctray.evaluate.scoring import OWN_METHOD
from ctray.evaluate.truth import read_truths
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

SIZE = 32
CONFIG = load_config(None, (f"preprocess.working_size={SIZE // 2}", "preprocess.container=off"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[PhantomRecord]]:
    url = str(tmp_path_factory.mktemp("archive"))
    return url, write_phantoms(url, count=3, size=SIZE, seed=5)


def begin(tmp_path: Path, config: RunConfig = CONFIG) -> RunFolder:
    run = RunFolder(url=str(tmp_path / "run"))
    store.write_json(run.manifest, {"archive": "", "config": config.model_dump(mode="json")})
    return run


def receipt_for(record: PhantomRecord, box: Box | None, **more: Any) -> VolumeRecord:
    fields: dict[str, Any] = {
        "volume_id": record.volume_id,
        "source_url": record.url,
        "status": "located" if box else "empty",
        "sample_box": box,
        "working": {"factors": [2, 2, 2]},
    }
    return VolumeRecord(**{**fields, **more})


def true_box(record: PhantomRecord) -> Box:
    assert record.box is not None
    return record.box


def test_our_box_the_crop_and_every_baseline_are_scored_on_all_volumes(
    tmp_path: Path, archive: tuple[str, list[PhantomRecord]]
) -> None:
    url, (first, second, third) = archive
    run = begin(tmp_path)
    whole = Box.whole((SIZE,) * 3)
    shifted = Box(start=true_box(second).start, stop=whole.stop)
    run.write_receipt(receipt_for(first, true_box(first), crop_box=whole))
    run.write_receipt(receipt_for(second, shifted, crop_box=whole))
    lost = receipt_for(third, None, status="failed", imported_url=None, working={})
    run.write_receipt(lost)
    ticks: list[tuple[int, int]] = []
    result = evaluate_run(run, url, progress=lambda done, total: ticks.append((done, total)))

    own = result.table.summary(OWN_METHOD)
    assert (own.num_volumes, own.num_located, own.num_missing) == (3, 2, 1)
    by_id = {s.volume_id: s for s in result.table.scores if s.method == OWN_METHOD}
    assert by_id[first.volume_id].error_voxels == 0
    stops = [SIZE - stop for stop in true_box(second).stop]
    assert by_id[second.volume_id].error_voxels == pytest.approx(sum(stops) / 6)
    assert by_id[third.volume_id].outcome == "missing"

    crop = result.table.summary(CROP_METHOD)
    assert (crop.mean_sample_lost, crop.mean_storage_saved) == (0, 0)
    assert result.supervised == {m for m in result.table.methods if "-best" in m} != set()
    for method in result.table.methods:
        assert result.table.summary(method).num_volumes == 3
    # The volume that nobody could read is lost for the baselines too.
    lost_scores = [s for s in result.table.scores if s.volume_id == third.volume_id]
    assert {s.outcome for s in lost_scores} == {"missing"}
    assert ticks[-1] == (6, 6)  # two readable volumes, three passes


def test_ranked_puts_ours_first_then_the_best(
    tmp_path: Path, archive: tuple[str, list[PhantomRecord]]
) -> None:
    url, records = archive
    run = begin(tmp_path)
    for record in records:
        run.write_receipt(receipt_for(record, Box.whole((SIZE,) * 3)))
    ranked = evaluate_run(run, url).ranked()
    assert ranked[0].method == OWN_METHOD
    assert CROP_METHOD not in [r.method for r in ranked]  # nothing was cropped
    errors = [r.mean_voxels for r in ranked[1:]]
    assert errors == sorted(e for e in errors if e is not None)
    assert errors[0] is not None
    assert errors[0] < (ranked[0].mean_voxels or 0)


def test_files_hold_the_scores(tmp_path: Path, archive: tuple[str, list[PhantomRecord]]) -> None:
    url, records = archive
    run = begin(tmp_path)
    for record in records[:2]:
        run.write_receipt(receipt_for(record, record.box))
    result = evaluate_run(run, url)
    json_url, parquet_url = write_evaluation(result, run)
    document = json.loads(store.read_bytes(json_url))
    summaries = {row["method"]: row for row in document["summary"]}
    assert summaries[OWN_METHOD]["mean_voxels"] == 0
    assert summaries[OWN_METHOD]["supervised"] is False
    assert summaries["raw-best"]["supervised"] is True
    assert summaries["raw-best"]["variant"]
    assert document["without_prediction"] == [records[2].volume_id]
    rows = pq.read_table(io.BytesIO(store.read_bytes(parquet_url))).to_pylist()
    assert len(rows) == 2 * len(summaries)
    assert {row["method"] for row in rows if row["supervised"]} == result.supervised


def test_without_baselines_no_volume_is_read(
    tmp_path: Path, archive: tuple[str, list[PhantomRecord]]
) -> None:
    url, records = archive
    run = begin(tmp_path)
    run.write_receipt(receipt_for(records[0], records[0].box, imported_url="/nowhere.zarr"))
    result = evaluate_run(run, url, baselines=False)
    assert result.table.methods == (OWN_METHOD,)
    assert result.baselines == ()


def test_cases_are_at_the_working_level_of_the_run_and_stay_within_the_cache(
    archive: tuple[str, list[PhantomRecord]],
) -> None:
    url, records = archive
    truths = read_truths(url)
    receipts = [receipt_for(r, r.box) for r in records]
    # Constant volumes have noted nothing: factors are found again.
    receipts[1] = receipt_for(records[1], None, working={})
    # Four bytes a voxel of the raw means, one each of what is filled and of what lies inside.
    one = (4 + 1 + 1) * (SIZE // 2) ** 3
    cases = baseline_cases(receipts, truths, CONFIG.preprocess, cache_bytes=one + one // 2)
    assert [c.factors for c in cases] == [(2, 2, 2)] * 3
    arrays = [c.arrays() for c in cases]
    assert {a.raw.shape for a in arrays} == {(SIZE // 2,) * 3}
    assert all(a.inside is not None and a.inside.any() for a in arrays)
    kept = [case.arrays() is before for case, before in zip(cases, arrays, strict=True)]
    assert kept == [True, False, False]


def test_a_run_without_receipts_or_shared_volumes_says_so(
    tmp_path: Path, archive: tuple[str, list[PhantomRecord]]
) -> None:
    url, records = archive
    run = begin(tmp_path)
    with pytest.raises(NotFoundError, match="no receipts"):
        evaluate_run(run, url)
    run.write_receipt(receipt_for(records[0], None, volume_id="other"))
    with pytest.raises(NotFoundError, match="ids must be equal"):
        evaluate_run(run, url)
