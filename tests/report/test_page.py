"""The page: every volume, every fact, nothing that a name can break."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from report_makers import (
    BOX,
    CROP,
    HOSTILE,
    SHAPE,
    fill,
    located,
    page_of,
    pictures,
    without_box,
)

from ctray.archive.catalog import CatalogEntry, write_catalog
from ctray.config import RunConfig, override
from ctray.config.box_settings import METHOD_VERSION, box_settings
from ctray.core.geometry import Box
from ctray.core.readable import percent_text
from ctray.evaluate.scoring import score_methods
from ctray.evaluate.truth import Truth
from ctray.localization.margins import LOSSES, Calibration
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.report import write_report
from ctray.report.summary import choose_pictured, summarize_run
from ctray.storage import store


def test_whole_page(run: RunFolder) -> None:
    fill(
        run,
        located("sure", 0.8),
        located("doubtful", 0.1),
        without_box("air", "empty", "no slice is certain"),
    )
    failed = CatalogEntry(
        volume_id="broken",
        url="/archive/broken.tif",
        kind="tiff",
        status="failed",
        reason="page 7 is truncated",
    )
    waiting = CatalogEntry(volume_id="waiting", url="/archive/waiting.tif", kind="tiff")
    write_catalog([failed, waiting], run.catalog)
    store.write_json(run.manifest, {"archive": "s3://beamline/june", "ctray_version": "9.8"})

    page = page_of(run)

    sections = [i for i in page.ids if i.startswith("volume-")]
    order = ["broken", "air", "doubtful", "sure", "waiting"]
    assert sections == [f"volume-{name}" for name in order]
    assert len(page.ids) == len(set(page.ids))
    rows = [href for href in page.attributes("a", "href") if href.startswith("#volume-")]
    assert rows == [f"#volume-{name}" for name in order]
    for text in (
        "page 7 is truncated",
        "no slice is certain",
        "not processed yet",
        "0.10 y0",
        "june",
        "ctray 9.8",
        "ab" * 32,
        "s3://beamline/june",
    ):
        assert text in page.text
    # 48 x 40 x 36 of 96 x 80 x 64 voxels stay.
    assert page.text.count(f"{percent_text(1 - 48 * 40 * 36 / (96 * 80 * 64))} ") >= 4
    assert "../localizations.parquet" in page.attributes("a", "href")


def test_a_voxel_size_without_a_unit_is_never_said_to_be_micrometres(run: RunFolder) -> None:
    fill(run, located("a", voxel_size_um=None, plain_scale="0.65 × 0.65 × 2 (unit unknown)"))
    text = page_of(run).text
    assert "voxel size 0.65 × 0.65 × 2 (unit unknown)" in text
    assert "µm" not in text


def rated(volume_id: str, **changes: Any) -> VolumeRecord:
    stated = {"promise": "calibrated", "max_loss": 0.001, "coverage": 0.95}
    return located(volume_id, **{**stated, **changes})


STATED = rated("a").promise_text


def test_stated_loss_is_shown_where_there_is_one(run: RunFolder) -> None:
    fill(run, rated("a"), rated("b"))
    page = page_of(run)
    assert page.text.count(STATED) == 3
    assert "not calibrated" not in page.text.lower()
    assert not [c for c in page.attributes("span", "class") if "unstated" in c]


@pytest.mark.parametrize("promise", ["not calibrated", "fixed margin"])
def test_crop_without_a_rate_is_never_shown_as_safe(run: RunFolder, promise: str) -> None:
    without = rated("a", promise=promise, max_loss=None, coverage=None)
    fill(run, without, rated("b"))
    config = override(RunConfig(), ("train.steps=700",))
    store.write_json(run.manifest, {"archive": "x", "config": config.model_dump(mode="json")})
    page = page_of(run)
    assert page.text.count(STATED) == 1
    assert without.promise_text in page.text
    assert "1 of 2 crops state no loss rate" in page.text
    # In the table and in its own section.
    classes = page.attributes("span", "class")
    assert classes.count("status located unstated") == 2
    assert classes.count("status located") == 2
    assert ("Not calibrated: " in page.text) == (promise == "not calibrated")


def test_page_says_which_settings_are_not_calibrated(run: RunFolder) -> None:
    fill(run, rated("a", promise="not calibrated", max_loss=None, coverage=None))
    config = override(RunConfig(), ("train.steps=700",))
    fitted = Calibration(
        scores=dict.fromkeys(LOSSES, (1.0,) * 40),
        largest_scale=0.5,
        about="",
        box_settings_digest="sha256:01",
        box_settings=box_settings(RunConfig()),
    )
    store.write_json(run.calibration, fitted.to_json())
    store.write_json(run.manifest, {"archive": "x", "config": config.model_dump(mode="json")})
    why = "other settings than those of the calibration: train.steps"
    assert f"Not calibrated: {why}." in page_of(run).text
    summary = summarize_run(run)
    assert (summary.promises, summary.not_calibrated) == ({"not calibrated": 1}, why)


def test_volume_for_review_states_nothing(run: RunFolder) -> None:
    fill(run, rated("a", status="uncertain", reason="the boxes differ"))
    page = page_of(run)
    assert STATED not in page.text


def test_crop_box_stands_beside_the_samples(run: RunFolder) -> None:
    fill(run, located("a"))
    text = page_of(run).text
    # Once in the table, once in the volume's section.
    crop = ", ".join(f"{a} {x}–{y}" for a, (x, y) in zip("zyx", CROP, strict=True))
    assert text.count(f"crop {crop}") == 2


def test_edge_of_medium_is_in_the_key_where_there_is_one(run: RunFolder) -> None:
    fill(run, located("a"))
    assert "edge of medium" not in page_of(run).text
    column = FieldOfView(column=Cylinder(center_y=9.5, center_x=7.5, radius=7.0))
    working = {**located("b").working, "field_of_view": column.to_json()}
    fill(run, located("b", working=working))
    assert "edge of medium" in page_of(run).text


def test_needs_nothing_else(run: RunFolder) -> None:
    fill(run, located("a"))
    page = page_of(run)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert all(src.startswith("data:image/") for src in page.attributes("img", "src"))
    alts = page.attributes("img", "alt")
    assert len(alts) == len(page.attributes("img", "src")) == 3
    assert all("box spans" in alt for alt in alts)
    text = Path(run.report).read_text(encoding="utf-8")
    assert not re.search(r"url\((?!%23)", text)


def test_hostile_names_stay_text(run: RunFolder) -> None:
    evil = without_box(HOSTILE, "failed", "<img src=x onerror=alert(2)>")
    fill(run, located(HOSTILE.replace("y", "z"), source_url="</section><b>"), evil)
    store.write_json(run.manifest, {"archive": "s3://x/<i>june</i>", "ctray_version": "<u>"})
    page = page_of(run)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b:", "i", "u"})
    assert "onerror" not in {name for _, attrs in page.tags for name in attrs}
    for text in (HOSTILE, "<img src=x onerror=alert(2)>", "</section><b>", "<i>june</i>"):
        assert text in page.text
    targets = [i for i in page.ids if i.startswith("volume-")]
    assert len(targets) == 2
    links = {href for href in page.attributes("a", "href") if href.startswith("#volume-")}
    assert links == {f"#{target}" for target in targets}


def test_without_any_pictures(run: RunFolder) -> None:
    bare = located("bare", profiles={}, stretches={}, working={})
    fill(run, bare, located("profiles-only"), with_pictures=False)
    page = page_of(run)
    assert "No pictures of this volume were stored" in page.text
    assert page.text.count("threshold 0.20") == 3
    assert not store.exists(run.at("report", "located.png"))


def test_damaged_parts_do_not_cost_the_page(run: RunFolder) -> None:
    fill(run, located("a"), located("b"))
    Path(run.preview("a")).write_bytes(Path(run.preview("a")).read_bytes()[:200])
    Path(run.at("scores.json")).write_text("{")
    Path(run.at("checkpoint")).mkdir()
    Path(run.at("checkpoint", "checkpoint.json")).write_text('{"step": 1}')
    page = page_of(run)
    assert {"volume-a", "volume-b"} <= set(page.ids)
    assert "scores.json holds no valid JSON" in page.text
    assert "checkpoint.json is damaged" in page.text


def test_scores_and_truth(run: RunFolder) -> None:
    fill(run, located("a"), located("b", 0.4))
    true = Box.from_ranges([[20, 62], [16, 48], [12, 40]])
    truths = {name: Truth(volume_id=name, shape=SHAPE, box=true) for name in "ab"}
    own = Box.from_ranges(BOX)
    table = score_methods({"otsu": {"a": None, "b": own}, "ctray": {"a": own, "b": own}}, truths)
    store.write_json(run.at("scores.json"), table.to_json())
    page = page_of(run)
    methods = re.findall(r"\b(ctray|otsu)\s+\d of 2", page.text)
    assert methods == ["ctray", "otsu"]
    # One of six faces is off by two voxels of 96.
    assert "0.33" in page.text
    assert "0.3%" in page.text
    assert summarize_run(run).rows[0].truth == true


def test_training_curve(run: RunFolder) -> None:

    fill(run, located("a"), with_pictures=False)
    rows = [{"step": float(s), "loss": 2.0 - s / 100, "accuracy": s / 100} for s in (10, 50, 90)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    store.write_bytes(run.at("checkpoint", "m.parquet"), buffer.getvalue())
    config = {"rotation": {"max_angle": 90, "angle_step": 45}}
    files = {"weights": "w.safetensors", "optimizer": "o.safetensors", "metrics": "m.parquet"}
    manifest = {"step": 90, "side": 48, "files": files, "config": config}
    manifest |= {"digest": "cd", "method_version": METHOD_VERSION}
    store.write_json(run.at("checkpoint", "checkpoint.json"), manifest)
    page = page_of(run)
    assert (
        "At step 90 the loss is 1.100 and the accuracy is 0.90; a random guess gives 0.20."
        in page.text
    )


def test_sorting_run_shows_displacement_variance_and_hull(run: RunFolder) -> None:

    region = np.zeros((24, 20), np.uint8)
    region[4:9, 3:7] = region[9, 12] = 255
    fill(run, located("a", method="sorting", map_url="maps/a.zarr"))
    more = {f"region-{name}": region[:n] for name, n in (("z", 20), ("y", 24), ("x", 24))}
    run.write_preview("a", pictures() | more | {f"variance-{n}": region for n in "zyx"})
    rows = [{"step": 50.0, "loss": 0.1, "displacement": 2.5, "rank_displacement": 1.5}]
    names = ("displacement", "rank_displacement")
    held = {f"{p}_{n}": v for p, v in (("validation", 0.75), ("training", 0.5)) for n in names}
    rows.append({**rows[0], "step": 100.0, **held})
    buffer = io.BytesIO()
    columns = {name: [row.get(name) for row in rows] for name in rows[1]}
    pq.write_table(pa.table(columns), buffer)
    store.write_bytes(run.at("checkpoint", "m.parquet"), buffer.getvalue())
    files = {"weights": "w.safetensors", "optimizer": "o.safetensors", "metrics": "m.parquet"}
    config = {"task": "sorting"}
    manifest = {"step": 100, "side": 48, "files": files, "config": config}
    manifest |= {"digest": "cd", "method_version": METHOD_VERSION}
    store.write_json(run.at("checkpoint", "checkpoint.json"), manifest)
    page = page_of(run)
    assert "the mean displacement is 2.50; a random guess gives 3.97." in page.text
    assert (
        "it is 0.75 on held-out volumes and 0.50 on training volumes (by rank 0.75 and 0.50)."
        in page.text
    )
    assert "variance, and hull of its region" in page.text
    assert any("Mean displacement over" in alt for alt in page.attributes("img", "alt"))
    assert any("variance profile of a along z" in alt for alt in page.attributes("img", "alt"))


def test_located_picture(run: RunFolder) -> None:
    fill(run, located("a"))
    write_report(run)
    data = Path(run.at("report", "located.png")).read_bytes()
    colors = Image.open(io.BytesIO(data)).convert("RGB").getcolors(1 << 20) or []
    orange = sum(n for n, (r, g, b) in colors if r > 230 and 110 < g < 160 and b < 40)
    assert orange > 500


def test_big_archive_pictures_what_needs_a_look(run: RunFolder) -> None:
    plain = [located(f"v{i:03d}", (i + 1) / 100, profiles={}, working={}) for i in range(97)]
    bad = [without_box(f"bad{i}", "failed", "unreadable") for i in range(3)]
    fill(run, *plain, *bad, with_pictures=False)
    page = page_of(run, max_pictured=30, max_rows=50)
    sections = [i.removeprefix("volume-") for i in page.ids if i.startswith("volume-")]
    assert sections[:13] == ["bad0", "bad1", "bad2", *(f"v{i:03d}" for i in range(10))]
    assert len(sections) == 3 + 10 + 10
    assert "23 of 100 volumes have details" in page.text
    assert "first 50 of 100 volumes" in page.text
    rows = summarize_run(run).rows
    assert choose_pictured(rows, 30) == choose_pictured(rows, 30)
    assert choose_pictured(rows, 30, seed=1) != choose_pictured(rows, 30)
    assert choose_pictured(rows, 100) == rows


def test_page_tells_what_was_kept_in_view_and_what_a_box_grew_by(run: RunFolder) -> None:
    fill(run, located("a"))
    assert "container wall" not in page_of(run).text
    working = {
        **located("b").working,
        "last_look": {"cut_fraction": 0.0123, "doubt": False},
        "field_of_view": {"kept_fraction": 0.0456},
    }
    fill(run, located("b", working=working))
    text = page_of(run).text
    assert "pieces of the sample (1.2% of its voxels) continued beyond it" in text
    assert "was kept (4.6% of the foreground voxels)" in text
