"""The report: every volume on one page, boxes where they belong, nothing that a name can break."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Ellipse, Rectangle
from PIL import Image

from ctray.archive.catalog import CatalogEntry, write_catalog
from ctray.config import RunConfig, override
from ctray.config.box_settings import box_settings
from ctray.core.errors import NotFoundError
from ctray.core.geometry import Box
from ctray.evaluate.scoring import score_methods
from ctray.evaluate.truth import Truth
from ctray.localization.margins import LOSSES, Calibration
from ctray.phantom import make_phantom, preset
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView
from ctray.records.box_table import write_localizations
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.report import figure_located, write_report
from ctray.report.encoding import svg_data_uri
from ctray.report.figures import VolumeView, axis_figure
from ctray.report.summary import choose_pictured, summarize_run
from ctray.report.text import human_bytes, percent
from ctray.storage import store

SHAPE = (96, 80, 64)
FACTOR = 4
BOX = [[20, 60], [16, 48], [12, 40]]
CROP = [[16, 64], [12, 52], [8, 44]]
HOSTILE = "\"><script>alert(1)<&script> 'x' %41#y"
VOID = {"meta", "img", "line", "br", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + " "

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs.get(name) or "" for t, attrs in self.tags if t == tag and name in attrs]


def located(volume_id: str, confidence: float = 0.5, **changes: Any) -> VolumeRecord:
    bump = [0.9 if 5 <= i < 15 else 0.15 for i in range(24)]
    stretch = {"threshold": 0.2, "background": 0.15, "certainty": [confidence, 0.9]}
    values: dict[str, Any] = {
        "volume_id": volume_id,
        "source_url": f"/archive/{volume_id}",
        "status": "located",
        "method": "rotation",
        "model_digest": "ab" * 32,
        "sample_box": Box.from_ranges(BOX),
        "crop_box": Box.from_ranges(CROP),
        "confidence": confidence,
        "face_confidence": [0.9, 0.9, confidence, 0.9, 0.9, 0.9],
        "shape": list(SHAPE),
        "dtype": "uint16",
        "voxel_size_um": [2.0, 2.0, 2.0],
        "bytes_total": 2 * 96 * 80 * 64,
        "bytes_written": 123_456,
        "profiles": {name: bump[: n // FACTOR] for name, n in zip("zyx", SHAPE, strict=True)},
        "stretches": {
            name: {"range": [a // FACTOR, b // FACTOR], **stretch}
            for name, (a, b) in zip("zyx", BOX, strict=True)
        },
        "working": {
            "shape": [n // FACTOR for n in SHAPE],
            "factors": [FACTOR] * 3,
            "field_of_view": FieldOfView(
                circle=Cylinder(center_y=9.5, center_x=7.5, radius=7.0)
            ).to_json(),
        },
    }
    return VolumeRecord(**{**values, **changes})


def without_box(volume_id: str, status: str, reason: str) -> VolumeRecord:
    nothing = dict.fromkeys(("sample_box", "crop_box", "confidence", "face_confidence"))
    return located(volume_id, **nothing, status=status, reason=reason, stretches={}, profiles={})


def pictures(seed: int = 0) -> dict[str, Any]:
    volume = make_phantom(preset("easy", seed=seed, size=24)).volume
    volume = (volume.astype(float) * (255 / volume.max())).astype(np.uint8)[:, :20, :16]
    made = {f"slice-{n}": np.take(volume, 8, axis=a) for a, n in enumerate("zyx")}
    return made | {f"projection-{n}": volume.max(axis=a) for a, n in enumerate("zyx")}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(url=str(tmp_path / "run"))


def fill(run: RunFolder, *receipts: VolumeRecord, with_pictures: bool = True) -> None:
    for receipt in receipts:
        if with_pictures:
            run.write_preview(receipt.volume_id, pictures())
        run.write_receipt(receipt)
    write_localizations(run.localizations, list(receipts))


def page_of(run: RunFolder, **options: int) -> Page:
    url = write_report(run, **options)
    assert url == run.report
    return Page(Path(url).read_text(encoding="utf-8"))


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
    store.write_json(run.manifest, {"archive": "s3://beamline/june", "versions": {"ctray": "9.8"}})

    page = page_of(run)

    sections = [i for i in page.ids if i.startswith("volume-")]
    order = ["broken", "air", "doubtful", "sure", "waiting"]
    assert sections == [f"volume-{name}" for name in order]
    assert len(page.ids) == len(set(page.ids))
    rows = [href for href in page.attributes("a", "href") if href.startswith("#")]
    assert rows == [f"#volume-{name}" for name in order]
    for text in (
        "page 7 is truncated",
        "no slice is certain",
        "not done yet",
        "0.10 y0",
        "june",
        "ctray 9.8",
        "ab" * 32,
        "s3://beamline/june",
    ):
        assert text in page.text
    # 48 x 40 x 36 of 96 x 80 x 64 voxels stay.
    assert page.text.count(f"{percent(1 - 48 * 40 * 36 / (96 * 80 * 64))} ") >= 4
    assert "../localizations.parquet" in page.attributes("a", "href")


def test_a_voxel_size_without_a_unit_is_never_said_to_be_micrometres(run: RunFolder) -> None:
    fill(run, located("a", voxel_size_um=None, plain_scale="0.65 × 0.65 × 2 (unit unknown)"))
    text = page_of(run).text
    assert "voxel size 0.65 × 0.65 × 2 (unit unknown)" in text
    assert "µm" not in text


def rated(volume_id: str, **changes: Any) -> VolumeRecord:
    stated = {"promise": "calibrated", "max_loss": 0.001, "coverage": 0.95}
    return located(volume_id, **{**stated, **changes})


def test_stated_loss_is_shown_where_there_is_one(run: RunFolder) -> None:
    fill(run, rated("a"), rated("b"))
    page = page_of(run)
    assert page.text.count("at most 0.10% lost, stated for 95% of volumes") == 3
    assert "not calibrated" not in page.text.lower()
    assert not [c for c in page.attributes("span", "class") if "unstated" in c]


@pytest.mark.parametrize("promise", ["not calibrated", "fixed margin"])
def test_crop_without_a_rate_is_never_shown_as_safe(run: RunFolder, promise: str) -> None:
    without = rated("a", promise=promise, max_loss=None, coverage=None)
    fill(run, without, rated("b"))
    config = override(RunConfig(), ("train.steps=700",))
    store.write_json(run.manifest, {"archive": "x", "config": config.model_dump(mode="json")})
    page = page_of(run)
    assert page.text.count("at most 0.10% lost") == 1
    assert f"{promise}: no loss rate is stated" in page.text
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
    assert "0.10%" not in page.text


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
    store.write_json(run.manifest, {"archive": "s3://x/<i>june</i>", "versions": {"<u>": "<u>"}})
    page = page_of(run)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b:", "i", "u"})
    assert "onerror" not in {name for _, attrs in page.tags for name in attrs}
    for text in (HOSTILE, "<img src=x onerror=alert(2)>", "</section><b>", "<i>june</i>"):
        assert text in page.text
    targets = [i for i in page.ids if i.startswith("volume-")]
    assert len(targets) == 2
    links = {href for href in page.attributes("a", "href") if href.startswith("#")}
    assert links == {f"#{target}" for target in targets}


def test_without_any_pictures(run: RunFolder) -> None:
    bare = located("bare", profiles={}, stretches={}, working={})
    fill(run, bare, located("profiles-only"), with_pictures=False)
    page = page_of(run)
    assert "No pictures were kept" in page.text
    assert page.text.count("threshold 0.20") == 3
    assert not store.exists(run.at("report", "located.png"))
    with pytest.raises(NotFoundError, match="'bare' has no pictures"):
        figure_located(run, "bare")


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


def test_no_run(run: RunFolder) -> None:
    with pytest.raises(NotFoundError, match="holds no run"):
        write_report(run)


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    fill(run, located("a"), with_pictures=False)
    rows = [{"step": float(s), "loss": 2.0 - s / 100, "accuracy": s / 100} for s in (10, 50, 90)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    store.write_bytes(run.at("checkpoint", "m.parquet"), buffer.getvalue())
    config = {"rotation": {"max_angle": 90, "angle_step": 45}}
    files = {"weights": "w.safetensors", "optimizer": "o.safetensors", "metrics": "m.parquet"}
    manifest = {"step": 90, "side": 48, "files": files, "config": config, "digest": "cd"}
    store.write_json(run.at("checkpoint", "checkpoint.json"), manifest)
    page = page_of(run)
    assert "At step 90 the loss is 1.100 and the accuracy 0.90; guessing gives 0.20." in page.text


def test_sorting_run_shows_displacement_variance_and_hull(run: RunFolder) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    manifest = {"step": 100, "side": 48, "files": files, "config": config, "digest": "cd"}
    store.write_json(run.at("checkpoint", "checkpoint.json"), manifest)
    page = page_of(run)
    assert "the mean displacement 2.50; guessing gives 3.97." in page.text
    assert "it is 0.75 on volumes that were held out and 0.50 on those" in page.text
    assert "variance, and hull of its region" in page.text
    assert any("Mean displacement over" in alt for alt in page.attributes("img", "alt"))
    assert any("variance profile of a along z" in alt for alt in page.attributes("img", "alt"))


def test_variance_is_laid_over_the_slice_in_colour() -> None:
    """The slice below stays grey and opaque, what lies over it is transparent where it is 0."""
    variance = np.zeros((20, 16), np.uint8)
    variance[4:9, 3:7] = 255
    shown = view(pictures=pictures() | {"variance-z": variance})
    svg = unquote(svg_data_uri(axis_figure(shown, 0)))
    found = re.findall(r"data:image/png;base64,\s*([^'\"]+)", svg)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]
    assert [image.mode for image in images].count("L") == 2
    (coloured,) = [image.convert("RGBA") for image in images if image.mode != "L"]
    red, green, blue, alpha = (np.asarray(band) for band in coloured.split())
    assert alpha.min() == 0
    strong = alpha > 100
    assert 0.01 < strong.mean() < 0.2
    assert red[strong].mean() > 200 > 120 > green[strong].mean()
    assert blue[strong].mean() > green[strong].mean()


def test_hull_lies_around_the_region() -> None:
    """Cells [4, 9) by [3, 7) of the working level are voxels [16, 36) by [12, 28)."""
    region = np.zeros((20, 16), np.uint8)
    region[4:9, 3:7] = 255
    shown = view(pictures=pictures() | {"region-z": region, "variance-z": region})
    assert shown.quantity == "Variance"
    panel = axis_figure(shown, 0).axes[0]
    (hull,) = [c for c in panel.collections if type(c).__name__ == "QuadContourSet"]
    points = np.concatenate([path.vertices for path in hull.get_paths()])
    assert points.min(axis=0) == pytest.approx([12, 16], abs=FACTOR / 2)
    assert points.max(axis=0) == pytest.approx([28, 36], abs=FACTOR / 2)


def view(**changes: Any) -> VolumeView:
    values: dict[str, Any] = {
        "shape": SHAPE,
        "factors": (FACTOR,) * 3,
        "pictures": pictures(),
        "box": Box.from_ranges(BOX),
        "crop_boxes": [Box.from_ranges(CROP)],
        "field_of_view": FieldOfView(
            container=Cylinder(center_y=9.5, center_x=7.5, slope_x=0.25, radius=6.0)
        ),
        "profiles": {"z": [0.1] * 24, "y": [0.1] * 20, "x": [0.1] * 16},
        "stretches": {"z": {"range": [5, 15], "threshold": 0.2, "background": 0.1}},
    }
    return VolumeView(**{**values, **changes})


@pytest.mark.parametrize(("axis", "down", "right"), [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_box_lies_on_its_voxels(axis: int, down: int, right: int) -> None:
    figure = axis_figure(view(), axis)
    for axes in figure.axes[:2]:
        boxes = {p.get_label(): p for p in axes.patches if isinstance(p, Rectangle)}
        assert boxes.keys() == {"box", "crop"}
        for label, ranges in (("box", BOX), ("crop", CROP)):
            patch = boxes[label]
            (x0, x1), (y0, y1) = ranges[right], ranges[down]
            assert patch.get_bbox().extents == pytest.approx([x0, y0, x1, y1])
        # The picture's pixels: one of FACTOR voxels each, from edge to edge.
        assert axes.images[0].get_extent() == [0, SHAPE[right], SHAPE[down], 0]
        assert axes.get_xlim() == (0, SHAPE[right])
        assert axes.get_ylim() == (SHAPE[down], 0)


def test_every_specimen_has_its_box_and_number() -> None:
    parts = [
        Box.from_ranges(r) for r in ([[20, 40], [16, 48], [12, 30]], [[45, 60], [16, 30], [20, 40]])
    ]
    axes = axis_figure(view(specimens=parts, crop_boxes=parts), 0).axes[0]

    drawn = [p for p in axes.patches if p.get_label() == "specimen"]
    assert [p.get_bbox().extents.tolist() for p in drawn if isinstance(p, Rectangle)] == [
        [12, 16, 30, 48],
        [20, 16, 40, 30],
    ]
    assert [(t.get_text(), t.xy) for t in axes.texts if hasattr(t, "xy")] == [
        ("1", (12, 16)),
        ("2", (20, 16)),
    ]
    assert sum(p.get_label() == "crop" for p in axes.patches) == 2


def test_box_is_drawn_around_its_pixels() -> None:
    """What the reader sees: the drawn line runs around exactly the pixels of the box."""
    empty = np.zeros((24, 20, 16), dtype=np.uint8)
    empty[5:15, 4:12, 3:10] = 255
    made = {f"projection-{n}": empty.max(axis=a) for a, n in enumerate("zyx")}
    for axis in range(3):
        figure = axis_figure(view(pictures=made, crop_boxes=(), field_of_view=FieldOfView()), axis)
        axes = figure.axes[0]
        picture = np.asarray(axes.images[0].get_array()) > 128
        rows, columns = np.nonzero(picture)
        edges = [columns.min() * 4, rows.min() * 4, columns.max() * 4 + 4, rows.max() * 4 + 4]
        patch = next(p for p in axes.patches if p.get_label() == "box")
        assert patch.get_bbox().extents == pytest.approx(edges)


def test_pictures_show_what_is_faint() -> None:
    """Bone in air takes the bright end, a wall beyond the field of view must not take it all."""
    air = np.zeros((20, 16), dtype=np.uint8)
    air[4:12, 3:10], air[6:8, 4:6] = 40, 255
    bounded = np.full((20, 16), 255, dtype=np.uint8)
    bounded[2:18, 3:13], bounded[8:12, 6:10] = 100, 160
    container = FieldOfView(container=Cylinder(center_y=9.5, center_x=7.5, radius=5.0))
    for picture, bound, contrast in ((air, FieldOfView(), 70), (bounded, container, 115)):
        seen = view(pictures={"projection-z": picture}, field_of_view=bound)
        shown = np.asarray(axis_figure(seen, 0).axes[0].images[0].get_array()).astype(int)
        assert shown[9, 8] - shown[5, 12 if picture is air else 8] >= contrast


def test_last_working_voxel_may_reach_past_the_volume() -> None:
    figure = axis_figure(view(shape=(95, 78, 62)), 0)
    assert figure.axes[0].get_xlim() == (0, 62)
    assert figure.axes[0].images[0].get_extent() == [0, 64, 80, 0]


def test_tilted_container_is_drawn_at_the_slice_shown() -> None:
    projection, middle = axis_figure(view(), 0).axes[:2]
    for axes, z in ((projection, 11.5), (middle, 10)):
        circle = next(p for p in axes.patches if isinstance(p, Ellipse))
        assert circle.center == pytest.approx(((7.5 + 0.25 * z + 0.5) * 4, (9.5 + 0.5) * 4))
        assert (circle.width, circle.height) == (48, 48)
    side = axis_figure(view(), 1).axes[0].lines[0]
    # The wall's left side from the top of the volume to its end: 0.25 voxels a slice.
    assert side.get_ydata() == pytest.approx([0, 96])
    assert side.get_xdata() == pytest.approx([(8 - 0.125 - 6) * 4, (8 + 24 * 0.25 - 0.125 - 6) * 4])


def test_edge_of_medium_is_drawn_and_bounds_nothing() -> None:
    column = Cylinder(center_y=9.5, center_x=7.5, radius=7.0)
    picture = np.arange(320, dtype=np.uint8).reshape(20, 16)
    drawn = {}
    for name, bound in (("none", FieldOfView()), ("column", FieldOfView(column=column))):
        seen = view(pictures={"projection-z": picture}, field_of_view=bound)
        drawn[name] = axis_figure(seen, 0).axes[0]
    (edge,) = (p for p in drawn["column"].patches if isinstance(p, Ellipse))
    assert (edge.get_label(), edge.width) == ("edge of medium", 56)
    shown = [axes.images[0].get_array() for axes in drawn.values()]
    np.testing.assert_array_equal(*shown)


def test_pictures_of_one_volume_share_a_scale() -> None:
    sides = []
    for axis in range(3):
        figure = axis_figure(view(spacing=(1.0, 0.5, 0.5)), axis)
        figure.draw_without_rendering()
        extent = figure.axes[0].get_window_extent()
        down, right = (SHAPE[a] * (1.0, 0.5, 0.5)[a] for a in range(3) if a != axis)
        sides += [extent.width / right, extent.height / down]
    assert sides == pytest.approx([sides[0]] * 6)


def test_svg_keeps_pixels_and_is_well_formed() -> None:
    uri = svg_data_uri(axis_figure(view(), 0))
    assert '"' not in uri
    root = ElementTree.fromstring(unquote(uri.removeprefix("data:image/svg+xml,")))  # noqa: S314
    images = list(root.iter("{http://www.w3.org/2000/svg}image"))
    assert len(images) == 2
    data = images[0].attrib["{http://www.w3.org/1999/xlink}href"].split(",")[1]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (image.mode, image.size) == ("L", (16, 20))
    # Every reference in the compacted file leads somewhere.
    text = unquote(uri)
    targets = set(re.findall(r"(?:url\(|href=')#([^)']+)", text))
    assert targets
    assert all(f"id='{target}'" in text for target in targets)
    assert uri == svg_data_uri(axis_figure(view(), 0))


def test_located_picture(run: RunFolder) -> None:
    fill(run, located("a"))
    write_report(run)
    data = figure_located(run, "a")
    assert Path(run.at("report", "located.png")).read_bytes() == data
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
    assert "23 of 100 volumes have pictures" in page.text
    assert "first 50 of 100 volumes" in page.text
    rows = summarize_run(run).rows
    assert choose_pictured(rows, 30) == choose_pictured(rows, 30)
    assert choose_pictured(rows, 30, seed=1) != choose_pictured(rows, 30)
    assert choose_pictured(rows, 100) == rows


def test_sizes_of_crops_and_of_what_stays(run: RunFolder) -> None:
    fill(run, located("a"), without_box("b", "uncertain", "why"), with_pictures=False)
    summary = summarize_run(run)
    volume, crop = 2 * 96 * 80 * 64, 2 * 48 * 40 * 36
    cropped, whole = summary.sizes(cropped=True), summary.sizes()
    assert (cropped.before, cropped.after, cropped.stored) == (volume, crop, 123_456)
    assert (whole.before, whole.after) == (2 * volume, volume + crop)
    assert summary.counts == {"uncertain": 1, "located": 1}


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (24_400_000_000, "24.4 GB"),
     (999_600, "1.00 MB"), (123_456_789, "123 MB"), (9_996, "10.0 kB"), (None, "–")],
)  # fmt: skip
def test_human_bytes(count: int | None, shown: str) -> None:
    assert human_bytes(count) == shown


@given(st.floats(0, 1, exclude_max=True))
def test_only_everything_is_a_hundred_percent(part: float) -> None:
    assert percent(part) != "100%"
    assert percent(1.0) == "100%"


@given(st.integers(0, 10**15))
def test_human_bytes_is_right_to_three_digits(count: int) -> None:
    value, unit = human_bytes(count).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}[unit]
    assert len(value.replace(".", "")) <= 3
    assert float(value) * factor == pytest.approx(count, rel=0.00503)


def test_page_tells_what_was_kept_in_view_and_what_a_box_grew_by(run: RunFolder) -> None:
    fill(run, located("a"))
    assert "kept in view" not in page_of(run).text
    working = {
        **located("b").working,
        "last_look": {"cut_fraction": 0.0123, "doubt": False},
        "field_of_view": {"kept_fraction": 0.0456},
    }
    fill(run, located("b", working=working))
    text = page_of(run).text
    assert "pieces (1.2% of the sample) went on beyond it" in text
    assert "container's wall (4.6% of what stands out)" in text
