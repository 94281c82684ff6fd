"""The benchmark from phantoms to table, resumed, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from ctray.benchmark.archives import scan_archives, write_changed_scan
from ctray.benchmark.plan import BenchmarkPlan, benchmark_config, committed_config
from ctray.benchmark.run import _claim, run_benchmark
from ctray.benchmark.variants import VARIANTS
from ctray.config import BOX_KINDS, Binds, RunConfig, changed_settings
from ctray.core.errors import ConfigError, NotFoundError, OutputExistsError
from ctray.evaluate.truth import iter_mask, read_truths
from ctray.learn.pretext.checkpoint import load_model
from ctray.phantom.scenes import benchmark_seed
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.volumes.volume import open_volume

SIZE = 32
PLAN = BenchmarkPlan(families=("embryo",), scenes=("easy", "empty-paper"), count=2, size=SIZE)


@pytest.fixture
def config(config_of: Callable[..., RunConfig]) -> RunConfig:
    """Nine steps teach nothing: Otsu's threshold gives some box."""
    return config_of(
        preprocess={"working_size": SIZE}, localize={"threshold": "otsu", "min_peak": 0.0}
    )


@pytest.mark.ray
@pytest.mark.slow
def test_two_scenes_are_run_scored_and_taken_up_again(
    ray_cpus: int, config: RunConfig, tmp_path: Path
) -> None:
    variants = {"fixed": ("localize.threshold=0.0",), "no-window": ("rotation.angle_step=45",)}
    plan = replace(PLAN, variants=variants)
    out = tmp_path / "bench"
    events: list[Event] = []
    result = run_benchmark(str(out), plan, config, command="ctray bench", on_event=events.append)
    assert {event.stage for event in events} == {
        *("make", "catalog", "prepare", "pretrain", "localize")
    }
    rows = {(r.group.variant, r.group.scene, r.method): r for r in result.rows}
    easy = rows["main", "easy", "ctray"]
    assert (easy.num_volumes, easy.num_located) == (2, 2)
    assert easy.mean_crop_lost is not None
    assert easy.mean_bytes_read is not None
    assert rows["main", "easy", "raw-best"].supervised
    empty = rows["main", "empty-paper", "ctray"]
    assert empty.num_empty + empty.num_false_alarms == 2
    assert empty.mean_voxels is None
    assert rows["main", "all", "ctray"].num_volumes == 4
    # A variant writes no crops, and its boxes are its own.
    whole = rows["fixed", "easy", "ctray"]
    assert whole.mean_crop_lost is None
    assert whole.mean_saved == 0
    check_runs(out)
    check_files(out)
    # Beside ours nothing that is known already is scored again where it is not asked for.
    alone = run_benchmark(str(out), PLAN, config, baselines=False)
    assert {r.method for r in alone.rows} == {"ctray"}

    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*.json")}
    events.clear()
    again = run_benchmark(str(out), plan, config, on_event=events.append)
    assert {event.stage for event in events} <= {"make", "catalog"}
    assert {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*.json")} == before
    assert again.rows == result.rows


def check_runs(out: Path) -> None:
    """Which variant trained anew, and that nothing was trained for the other."""
    runs = {p.name: RunFolder(url=str(p)) for p in (out / "runs" / "phantoms").iterdir()}
    digests = {name: load_model(run.checkpoint).digest for name, run in runs.items()}
    assert digests["fixed"] == digests["main"]
    assert digests["no-window"] != digests["main"]
    assert not (out / "runs" / "phantoms" / "fixed" / "crops").exists()
    ids = sorted(r.volume_id for r in runs["main"].receipts())
    assert ids == [
        *("embryo-easy-0000", "embryo-easy-0001"),
        *("embryo-empty-paper-0000", "embryo-empty-paper-0001"),
    ]
    truth = json.loads((out / "archives/phantoms/truth/embryo-easy-0001.json").read_text())
    assert truth["spec"]["seed"] == benchmark_seed("tuning", "embryo", "easy")


def check_files(out: Path) -> None:
    document = json.loads((out / "benchmark.json").read_text())
    assert document["plan"]["purpose"] == "tuning"
    assert document["command"] == "ctray bench"
    assert document["machine"]["cpu"]
    assert set(document["seconds"]) == {"phantoms/main", "phantoms/fixed", "phantoms/no-window"}
    table = pq.read_table(out / "rows.parquet").to_pylist()
    assert [r["mean_of_side"] for r in table] == [r["mean_of_side"] for r in document["rows"]]
    volumes = pq.read_table(out / "volumes.parquet").to_pylist()
    assert {v["volume_id"] for v in volumes} >= {"embryo-easy-0000", "embryo-empty-paper-0001"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"purpose": "calibration"}, "has the purpose tuning, not calibration"),
        ({"count": 3}, "another count"),
        ({"size": 40}, "another size"),
    ],
)
def test_a_folder_serves_one_purpose_and_plan(
    tmp_path: Path, config: RunConfig, change: dict[str, Any], words: str
) -> None:
    begin(tmp_path, config)
    with pytest.raises(ConfigError, match=words):
        run_benchmark(str(tmp_path), replace(PLAN, **change), config)
    other = config.model_copy(update={"train": config.train.model_copy(update={"steps": 99})})
    with pytest.raises(ConfigError, match="another train"):
        run_benchmark(str(tmp_path), PLAN, other)


def begin(folder: Path, config: RunConfig) -> None:
    manifest = {"plan": PLAN.to_json(), "config": config.model_dump(mode="json")}
    (folder / "benchmark.json").write_text(json.dumps(manifest))


def test_archives_of_another_folder_may_be_copied(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "archives").mkdir()
    _claim(str(tmp_path), PLAN, config)
    assert json.loads((tmp_path / "benchmark.json").read_text())["plan"] == PLAN.to_json()


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "chapter.tex").write_text("precious")
    with pytest.raises(OutputExistsError, match="empty"):
        run_benchmark(str(tmp_path), PLAN, config)
    assert [p.name for p in tmp_path.iterdir()] == ["chapter.tex"]


def test_final_figures_are_measured_with_the_settings_of_the_package(
    tmp_path: Path, config: RunConfig
) -> None:
    with pytest.raises(ConfigError, match="takes no --set"):
        benchmark_config("final", None, ("train.seed=3",))
    (tmp_path / "mine.yaml").write_text("train: {steps: 7}\n")
    with pytest.raises(ConfigError, match="only takes configs"):
        benchmark_config("final", tmp_path / "mine.yaml")
    assert benchmark_config("tuning", tmp_path / "mine.yaml").train.steps == 7
    assert benchmark_config("tuning", None, ("train.steps=5",)).train.steps == 5
    # A copy of the same settings is the same.
    packaged = Path(__file__).parents[2] / "configs" / "benchmark.yaml"
    assert benchmark_config("final", packaged) == benchmark_config("final") == committed_config()
    out = str(tmp_path / "bench")
    final = replace(PLAN, purpose="final")
    with pytest.raises(ConfigError, match="only takes configs"):
        run_benchmark(out, final, config)
    tuned = replace(final, variants={"otsu": ("localize.threshold=0.4",)})
    with pytest.raises(ConfigError, match="the package's variants"):
        run_benchmark(out, tuned, committed_config())
    assert not (tmp_path / "bench").exists()


def test_variants_change_something_and_know_whether_they_train() -> None:
    config = committed_config()
    reused = set()
    for name, settings in VARIANTS.items():
        other = benchmark_config("tuning", None, settings)
        assert changed_settings(config, other, *BOX_KINDS), f"{name} changes nothing"
        if not changed_settings(config, other, Binds.TRAINING):
            reused.add(name)
    assert "otsu" in reused
    assert "no-container" not in reused


def scans(folder: Path, count: int) -> None:
    """Scans as the real ones lie in their folder, tiny."""
    for number in range(count):
        place = folder / f"scan_{number}"
        place.mkdir(parents=True)
        mask = np.zeros((26, 40, 40), np.uint8)
        mask[0:20, 10:26, 12:28] = 1
        mask[5:8, 26:29, 15:20] = 2
        noise = np.random.default_rng(number).normal(10, 2, mask.shape)
        volume = np.clip(np.where(mask > 0, noise, 0), 0, 255).astype(np.uint8)
        tifffile.imwrite(place / "volume.tif", volume)
        tifffile.imwrite(place / "mask.tif", mask)
        meta = {
            "shape": mask.shape,
            "bbox_zyx_half_open": [[0, 20], [10, 29], [12, 28]],
            "bbox_tolerance_voxels_per_face": {"y": [1, 4]},
            "faces_touching_volume_border": ["z0"],
        }
        (place / "meta.json").write_text(json.dumps(meta))


def test_real_scans_are_scored_as_they_are_and_changed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    scans(data, 3)
    out = str(tmp_path / "archives")
    names = {}
    for purpose in ("tuning", "final"):
        plain, noisy, hybrid = scan_archives(out, str(data), purpose)  # type: ignore[arg-type]
        assert plain.groups == {("heads", "real"): ("scan_0", "scan_1", "scan_2")}
        assert not plain.items
        names[purpose] = (noisy.groups["heads-noisy", "real"], hybrid.groups["hybrid", "real"])
    assert names["tuning"] == (("heads-noisy-scan_0",), ("hybrid-scan_0",))
    assert names["final"][1] == ("hybrid-scan_1", "hybrid-scan_2")

    _, noisy, hybrid = scan_archives(out, str(data), "tuning")
    for archive in (noisy, hybrid):
        write_changed_scan(archive.items[0])  # type: ignore[arg-type]
    # The noisy scan keeps what is known about the real one, and how well.
    truth = read_truths(noisy.url)["heads-noisy-scan_0"]
    assert truth.touching == (True, False, False, False, False, False)
    assert truth.scored_faces == (False, True, True, False, True, True)
    # The hybrid's truth is its mask.
    exact = read_truths(hybrid.url)["hybrid-scan_0"]
    assert exact.box is not None
    assert exact.box.shape == (20, 19, 16)
    (slab,) = [mask for _, mask in iter_mask(exact)]
    assert slab[exact.box.slices].sum() == slab.sum() == 20 * 16 * 16 + 3 * 3 * 5
    # The thin part sticks out by three voxels: no figure of a face in a noisy medium.
    assert exact.tolerance == (0, 0, 0, 3, 0, 0)
    assert exact.scored_faces == (True, True, True, False, True, True)
    assert open_volume(f"{hybrid.url}/hybrid-scan_0.zarr").shape == exact.shape
    for stage in ("tuning", "final"):
        seeds = {
            item.seed
            for archive in scan_archives(out, str(data), stage)  # type: ignore[arg-type]
            for item in archive.items
            if not hasattr(item, "spec")
        }
        assert len(seeds) == 2


def test_data_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no truth"):
        scan_archives(str(tmp_path / "out"), str(tmp_path), "tuning")
