"""Archives of phantoms: volume and truth agree with what was rendered, reruns skip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctray.core.errors import ConfigError
from ctray.evaluate.phantom_archive import VOXEL_SIZE, read_truth, write_phantoms
from ctray.phantom import make_phantom, preset
from ctray.storage import store
from ctray.volumes.metadata import UNFINISHED
from ctray.volumes.volume import open_volume

SIZE = 40


def test_volume_and_truth_are_those_of_the_spec(tmp_path: Path) -> None:
    records = write_phantoms(str(tmp_path), count=2, size=SIZE, seed=3, kind="fish")
    assert [r.volume_id for r in records] == ["fish-0000", "fish-0001"]
    for index, record in enumerate(records):
        phantom = make_phantom(preset("easy", kind="fish", size=SIZE, seed=3, index=index))
        volume = open_volume(record.url)
        assert volume.voxel_size == VOXEL_SIZE
        np.testing.assert_array_equal(volume.read_level(0), phantom.volume)
        box, specimens = read_truth(record.truth_url)
        assert box == record.box == phantom.box
        assert specimens == phantom.boxes
        for what, expected in (("mask", phantom.mask), ("labels", phantom.labels)):
            url = store.join(str(tmp_path), "truth", f"{record.volume_id}-{what}.zarr")
            np.testing.assert_array_equal(open_volume(url).read_level(0), expected)


def test_several_specimens_have_a_box_and_a_number_each(tmp_path: Path) -> None:
    (record,) = write_phantoms(str(tmp_path), count=1, size=SIZE, kind="multi", specimens=3)
    _, specimens = read_truth(record.truth_url)
    numbers = open_volume(str(tmp_path / "truth" / "multi-0000-specimens.zarr")).read_level(0)
    for number, box in enumerate(specimens, start=1):
        assert (numbers[box.slices] == number).any()
    assert numbers.max() == 3


def test_empty_volume_has_no_box(tmp_path: Path) -> None:
    (record,) = write_phantoms(str(tmp_path), count=1, size=SIZE, empty=True)
    assert record.box is None
    assert read_truth(record.truth_url) == (None, [])


def test_rerun_skips_what_is_finished_and_redoes_the_rest(tmp_path: Path) -> None:
    first = write_phantoms(str(tmp_path), count=2, size=SIZE)
    assert not any(r.skipped for r in first)
    # As a killed run leaves it: truth and voxels there, the volume not committed.
    metadata = tmp_path / "embryo-0001.zarr" / "zarr.json"
    metadata.unlink()
    (tmp_path / "embryo-0001.zarr" / UNFINISHED).write_text("{}")
    kept = (tmp_path / "embryo-0000.zarr" / "zarr.json").stat().st_mtime_ns
    again = write_phantoms(str(tmp_path), count=3, size=SIZE)
    assert [r.skipped for r in again] == [True, False, False]
    assert (tmp_path / "embryo-0000.zarr" / "zarr.json").stat().st_mtime_ns == kept
    assert [r.box for r in again[:2]] == [r.box for r in first]


def test_other_options_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    write_phantoms(str(tmp_path), count=1, size=SIZE)
    with pytest.raises(ConfigError, match="other options"):
        write_phantoms(str(tmp_path), count=1, size=SIZE, noise=0.5)


def test_count_below_one_and_unknown_option_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="count=0"):
        write_phantoms(str(tmp_path), count=0)
    with pytest.raises(ConfigError, match="'nose'"):
        write_phantoms(str(tmp_path), count=1, nose=0.5)


def test_progress_sees_every_record(tmp_path: Path) -> None:
    seen: list[str] = []
    write_phantoms(str(tmp_path), count=2, size=SIZE, progress=lambda r: seen.append(r.volume_id))
    assert seen == ["embryo-0000", "embryo-0001"]
