"""What localization reads: little of a pyramid, and a volume without one only once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctray.archive.source_stamp import stamp_of
from ctray.core.geometry import Box, VoxelSize
from ctray.storage import store
from ctray.volumes.pyramids import with_kept_pyramid
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import read_working
from ctray.volumes.writer import create_volume

RNG = np.random.default_rng(5)
WORKING = 32


def written(url: str, voxels: np.ndarray, num_levels: int | None) -> Volume:
    writer = create_volume(
        url,
        shape=voxels.shape,
        dtype=voxels.dtype,
        voxel_size=VoxelSize.of((2.0, 2.0, 3.0)),
        origin_um=(10.0, 0.0, -5.0),
        num_levels=num_levels,
    )
    writer.write(Box.whole(voxels.shape), voxels)
    writer.build_pyramid()
    writer.commit({})
    return open_volume(url)


def with_kept(source: str, url: str, *, write: bool) -> Volume:
    """Volume of the source as it is now, with its kept levels."""
    stamp = stamp_of(source, "ome-zarr")
    return with_kept_pyramid(open_volume(source), url, WORKING, stamp=stamp, write=write)


@pytest.mark.parametrize(("working_size", "factor"), [(32, 8), (64, 4)])
def test_pyramid_spares_level_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, working_size: int, factor: int
) -> None:
    """Stored bytes against stored bytes: neither side is helped by compression."""
    # Of a small volume, the next finer level is read however large a part of it that is.
    monkeypatch.setattr("ctray.volumes.working._SMALL_VOLUME_BYTES", 0)
    noise = RNG.integers(0, 256, (256, 250, 240), dtype=np.uint8)
    volume = open_volume(written(str(tmp_path / "v"), noise, None).url)
    working, factors = read_working(volume, working_size)
    assert factors == (factor,) * 3
    assert working.shape == tuple(-(-n // factor) for n in noise.shape)
    assert 0 < volume.bytes_read < 0.02 * (volume.bytes_stored(0) or 0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_kept_levels_are_what_a_pass_over_the_volume_gives(tmp_path: Path, dtype: str) -> None:
    voxels = (RNG.random((200, 150, 99)) * 200).astype(dtype)
    plain = written(str(tmp_path / "v"), voxels, 1)
    expected, factors = read_working(plain, WORKING)
    url = str(tmp_path / "run" / "pyramids" / "v.zarr")
    first = with_kept(plain.url, url, write=True)
    again = with_kept(plain.url, url, write=False)
    for volume in (first, again):
        working, found = read_working(volume, WORKING)
        assert found == factors == (8, 8, 8)
        assert working.dtype == expected.dtype
        np.testing.assert_array_equal(working, expected)
    # One pass, whatever follows; and none at all the next time.
    assert first.bytes_read < 1.2 * plain.bytes_read
    assert again.bytes_read < 0.05 * plain.bytes_read
    # Crops take the levels that the volume itself has.
    assert again.levels == plain.levels


def test_kept_levels_lie_where_their_voxels_do(tmp_path: Path) -> None:
    plain = written(str(tmp_path / "v"), np.zeros((200, 150, 99), np.uint8), 1)
    url = str(tmp_path / "kept")
    with_kept(plain.url, url, write=True)
    kept = open_volume(url)
    assert kept.voxel_size == VoxelSize.of((8.0, 8.0, 12.0))
    # The mean of four voxels lies one and a half beyond the first.
    assert kept.origin_um == pytest.approx((13.0, 3.0, -0.5))


def test_levels_of_another_volume_are_not_taken(tmp_path: Path) -> None:
    url = str(tmp_path / "kept")
    other = written(str(tmp_path / "other"), np.full((200, 150, 99), 9, np.uint8), 1)
    with_kept(other.url, url, write=True)
    plain = written(str(tmp_path / "v"), np.full((200, 150, 99), 4, np.uint8), 1)
    for write in (False, True):
        working, _ = read_working(with_kept(plain.url, url, write=write), WORKING)
        assert (working == 4).all()


def test_levels_of_a_source_that_has_changed_are_made_anew_or_left_alone(base_url: str) -> None:
    """The same shape, dtype and name; only the stamp tells."""
    source, url = store.join(base_url, "v.zarr"), store.join(base_url, "pyramids", "v.zarr")
    shape = (130, 129, 65)
    written(source, np.full(shape, 9, np.uint8), 1)
    assert with_kept(source, url, write=True).coarse is not None
    assert with_kept(source, url, write=False).coarse is not None
    before = open_volume(url).attributes["source_stamp"]
    store.delete_tree(source)
    written(source, np.full(shape, 4, np.uint8), 1)

    unused = with_kept(source, url, write=False)
    assert unused.coarse is None
    assert (read_working(unused, WORKING)[0] == 4).all()
    assert open_volume(url).attributes["source_stamp"] == before, "nothing was written"
    made = with_kept(source, url, write=True)
    assert made.coarse is not None
    assert (read_working(made, WORKING)[0] == 4).all()
    again = with_kept(source, url, write=False)
    assert again.coarse is not None
    assert (again.coarse[0].read_level(0) == 4).all()


def test_levels_of_an_earlier_version_do_not_tell_of_what_they_are(tmp_path: Path) -> None:
    source, url = str(tmp_path / "v"), str(tmp_path / "kept")
    written(source, np.full((200, 150, 99), 4, np.uint8), 1)
    with_kept(source, url, write=True)
    metadata = store.read_json(store.join(url, "zarr.json"))
    del metadata["attributes"]["ctray"]["source_stamp"]
    store.write_json(store.join(url, "zarr.json"), metadata)
    assert with_kept(source, url, write=False).coarse is None
    assert with_kept(source, url, write=True).coarse is not None


def test_volume_with_a_pyramid_gets_no_second_one(tmp_path: Path) -> None:
    volume = written(str(tmp_path / "v"), np.zeros((200, 150, 99), np.uint8), None)
    with_kept(volume.url, str(tmp_path / "kept"), write=True)
    assert not (tmp_path / "kept").exists()
