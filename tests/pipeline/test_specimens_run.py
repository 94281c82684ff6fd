"""Several specimens in a run: receipts, crops, rows, and a rerun that does only what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctray.config import RunConfig
from ctray.core.geometry import AXES, Box
from ctray.evaluate.against_truth import evaluate_run
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.localization.localizer import Localization, PreparedVolume
from ctray.localization.profile_faces import FacePair
from ctray.localization.self_trained import SelfTrainedFaces
from ctray.pipeline import run as stages
from ctray.pipeline.run import run_archive
from ctray.pipeline.volume_work import LocalizeVolume
from ctray.records.box_table import read_localizations
from ctray.report import write_report
from ctray.volumes.volume import open_volume

pytestmark = pytest.mark.ray

SIDE = 24
PARTS = (
    Box(start=(2, 3, 4), stop=(9, 11, 13)),
    Box(start=(13, 14, 15), stop=(19, 20, 21)),
)


def planting() -> type:
    """Worker that localizes as ever, and then says that the first volume holds two specimens.

    All of it is local, so that it travels to other processes as code.
    """
    parts = PARTS

    def faces_of(box: Box, specimens: tuple[SelfTrainedFaces, ...] = ()) -> SelfTrainedFaces:
        faces: dict[str, FacePair | None] = {
            name: FacePair(
                start=float(a), stop=float(b), widths=(0.5, 0.5), thresholds=(-1.0, -1.0)
            )
            for name, (a, b) in zip(AXES, box.ranges, strict=True)
        }
        return SelfTrainedFaces(
            profiles=dict.fromkeys(AXES, np.zeros(24)),
            faces=faces,
            factors=(1, 1, 1),
            shape=(24, 24, 24),
            specimens=specimens,
        )

    class Planting(LocalizeVolume):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            assert self._config.localize.specimens
            find = self._localizer.find

            def planted(volume: PreparedVolume) -> Localization:
                found = find(volume)
                assert found.self_trained is not None
                assert found.self_trained.specimens is not None
                several = tuple(faces_of(part) for part in parts) if "0000" in volume.url else ()
                whole = faces_of(parts[0].union(parts[1]), several)
                return replace(
                    found,
                    status="located",
                    reason=None,
                    box=whole.box,
                    face_confidence=whole.confidence,
                    self_trained=whole,
                    specimens=several,
                )

            self._localizer.find = planted  # type: ignore[method-assign]

    return Planting


def times(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_every_specimen_gets_its_crop_and_its_row(
    ray_cpus: int,
    config_of: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = tmp_path / "archive"
    write_phantoms(str(archive), count=2, size=SIDE, seed=5, reconstruction_circle=False)
    config = config_of(
        localize={"threshold": "otsu", "min_peak": 0.0, "specimens": True},
        self_train={"enabled": True, "steps": 2, "slabs": 12},
        crop={"margin": 0.05},
    )
    monkeypatch.setattr(stages, "LocalizeVolume", planting())

    run, (several, single) = run_archive(str(archive), str(tmp_path / "run"), config)

    assert several.specimens is not None
    assert (several.crop_url, single.specimens) == (None, [])
    assert several.sample_box == PARTS[0].union(PARTS[1])
    source = open_volume(several.source_url).read_level(0)
    for number, (part, told) in enumerate(zip(PARTS, several.specimens, strict=True), start=1):
        assert told.sample_box == part
        assert told.crop_url == run.crop(several.volume_id, number)
        crop = open_volume(told.crop_url)
        box = told.crop_box
        assert box is not None
        assert box.contains(part.expand(2, source.shape))
        np.testing.assert_array_equal(crop.read_level(0), source[box.slices])
        about = crop.attributes
        assert (about["specimen"], about["num_specimens"]) == (number, 2)
        assert (about["volume_id"], about["source_url"]) == (several.volume_id, several.source_url)
        assert about["sample_box"] == part.ranges
        assert about["all_specimens_box"] == several.sample_box.ranges
    assert several.bytes_written == sum(told.bytes_written for told in several.specimens)
    rows = read_localizations(run.localizations)
    assert [(row["volume_id"][-4:], row["specimen"]) for row in rows] == [
        ("0000", 1),
        ("0000", 2),
        ("0001", 0),
    ]
    assert [rows[1][f"{axis}{end}"] for axis in AXES for end in (0, 1)] == list(PARTS[1].faces)
    assert rows[1]["crop_url"] == several.specimens[1].crop_url
    assert run.read_receipt(several.volume_id) == several

    check_rerun(run, archive, config, several)
    check_scores_and_report(run, archive)


def check_rerun(run: Any, archive: Path, config: RunConfig, several: Any) -> None:
    """One crop of two was not written when the run was ended: it alone is written now."""
    first, second = several.specimens
    shutil.rmtree(second.crop_url)
    cut_short = replace(second, crop_url=None, crop_box=None, checksum=None, bytes_written=0)
    run.write_receipt(replace(several, specimens=[first, cut_short]))
    before = times(Path(run.at("crops")))

    _, (again, _) = run_archive(str(archive), run.url, config)

    after = times(Path(run.at("crops")))
    assert {name: when for name, when in after.items() if name in before} == before
    assert [i.checksum for i in again.specimens] == [i.checksum for i in several.specimens]
    written = times(Path(run.url))
    run_archive(str(archive), run.url, config)
    changed = {name for name, when in times(Path(run.url)).items() if written.get(name) != when}
    page = {"report/index.html", "report/located.png"}
    assert changed <= {"catalog.parquet", "localizations.parquet", *page}


def check_scores_and_report(run: Any, archive: Path) -> None:
    scores = evaluate_run(run, str(archive), baselines=False)

    assert scores.specimens is not None
    assert (scores.specimens.num_found, scores.specimens.num_true) == (3, 2)
    assert scores.to_json()["specimens"]["num_right"] == 1
    page = Path(write_report(run)).read_text(encoding="utf-8")
    assert "specimen 1: " in page
    assert "specimen 2: " in page


def test_specimens_never_take_the_name_of_another_volume(tmp_path: Path) -> None:
    from ctray.archive.catalog import build_catalog, write_catalog
    from ctray.pipeline.cropping import _specimen_url, names_taken
    from ctray.records.run_folder import RunFolder

    archive = tmp_path / "archive"
    write_phantoms(str(archive), count=1, size=SIDE, reconstruction_circle=False)
    shutil.copytree(archive / "embryo-0000.zarr", archive / "embryo-0000-2.zarr")
    run = RunFolder(url=str(tmp_path / "run"))
    write_catalog(build_catalog(str(archive)), run.catalog)

    taken = names_taken(run)
    urls = [_specimen_url(run, "embryo-0000", number, taken) for number in (1, 2)]

    assert urls == [run.crop("embryo-0000", 1), run.at("crops", "embryo-0000--2.zarr")]
