"""The working level, and the level next finer that is read with it where that is little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctray.core.geometry import Box
from ctray.volumes.multiscale import downsample_mean, longest_side
from ctray.volumes.pyramids import with_kept_pyramid
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import read_working, read_working_level
from ctray.volumes.writer import create_volume

RNG = np.random.default_rng(11)


def stored(url: str, voxels: np.ndarray, num_levels: int | None = None) -> Volume:
    writer = create_volume(
        url, shape=voxels.shape, dtype=voxels.dtype, voxel_size=None, num_levels=num_levels
    )
    writer.write(Box.whole(voxels.shape), voxels)
    writer.build_pyramid()
    writer.commit({})
    return open_volume(url)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("num_levels", [1, 2, 3])
@pytest.mark.parametrize("working_size", [32, 16])
def test_finer_level_has_twice_the_working_level(
    tmp_path: Path, dtype: str, num_levels: int, working_size: int
) -> None:
    voxels = (RNG.random((64, 61, 50)) * 200).astype(dtype)
    volume = stored(str(tmp_path / "v"), voxels, num_levels)

    found = read_working_level(volume, working_size, finer=True)

    assert found.finer is not None
    assert found.ratio == (2, 2, 2)
    assert max(found.voxels.shape) == working_size
    np.testing.assert_array_equal(
        downsample_mean(found.finer.astype(np.float32)), found.voxels.astype(np.float32)
    )
    plain = read_working(volume, working_size)
    np.testing.assert_array_equal(plain[0], found.voxels)
    assert plain[1] == found.factors


def test_finer_level_is_only_given_when_asked_for(tmp_path: Path) -> None:
    volume = stored(str(tmp_path / "v"), RNG.random((64, 64, 64), np.float32), 3)
    opened = volume.bytes_read
    assert read_working_level(volume, 32).finer is None
    once = volume.bytes_read
    assert read_working_level(volume, 32, finer=True).finer is not None
    assert volume.bytes_read - once > 4 * (once - opened)


def test_nothing_is_finer_than_level_0(tmp_path: Path) -> None:
    volume = stored(str(tmp_path / "v"), np.ones((32, 32, 32), np.uint8))
    found = read_working_level(volume, 32, finer=True)
    assert (found.finer, found.factors) == (None, (1, 1, 1))


def test_large_finer_level_is_left_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = RNG.integers(0, 255, (64, 64, 64), np.uint8)
    volume = stored(str(tmp_path / "v"), voxels, 2)
    monkeypatch.setattr("ctray.volumes.working._SMALL_VOLUME_BYTES", 0)
    assert read_working_level(volume, 32, finer=True).finer is None
    monkeypatch.setattr("ctray.volumes.working._SMALL_LEVEL_BYTES", 0)
    assert read_working_level(volume, 16, finer=True).finer is None


def test_kept_pyramid_gives_the_finer_level(tmp_path: Path) -> None:
    voxels = RNG.integers(0, 255, (64, 60, 56), np.uint8)
    plain = stored(str(tmp_path / "v"), voxels, 1)
    expected = read_working_level(plain, 16, finer=True)
    url = str(tmp_path / "kept.zarr")
    kept = with_kept_pyramid(open_volume(plain.url), url, 16, stamp="", write=True)

    found = read_working_level(kept, 16, finer=True)

    assert found.finer is not None
    assert expected.finer is not None
    np.testing.assert_array_equal(found.finer, expected.finer)
    np.testing.assert_array_equal(found.voxels, expected.voxels)
    assert found.factors == expected.factors == (4, 4, 4)


@pytest.mark.parametrize(
    ("shape", "longest"),
    [
        ((2000, 2000, 2000), 64),
        ((2000, 1000, 1000), 64),
        ((6100, 2000, 2000), 98),
        ((97, 11, 13), 256),
        ((50, 2000, 2000), 256),
    ],
)
def test_elongated_volumes_keep_their_width(shape: tuple[int, int, int], longest: int) -> None:
    assert longest_side(shape, 64) == longest
    assert longest_side(shape, 2) <= 8
