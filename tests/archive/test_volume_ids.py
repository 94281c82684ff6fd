"""Ids of volumes are readable, unique and safe in file names."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.archive.volume_ids import MAX_BYTES, volume_ids


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["r/a/volume.tif", "r/b/volume.tif"], ["a", "b"]),
        (["r/a/recon/volume.tif"], ["a"]),
        (["r/volume.tif"], ["r"]),
        (["data/volume.tif"], ["volume"]),
        (["r/x/a.tif", "r/y/a.tif"], ["x_a", "y_a"]),
        (["r/x/a.tif", "r/y/A.tif", "r/y/b.tif"], ["x_a", "y_A", "y_b"]),
        (["r/x/recon.tif", "r/x/raw.tif"], ["x_recon", "x_raw"]),
        (["r/a.tif", "r/a.h5"], ["a_tif", "a_h5"]),
        (["r/a b (1).ome.zarr", "r/Größe.nxs"], ["a_b_1", "Größe"]),
        (["r/昆虫の標本.tif", "r/昆虫の化石.tif"], ["昆虫の標本", "昆虫の化石"]),
        (["r/scan_0001_LG/rec_8bit"], ["scan_0001_LG_rec_8bit"]),
        (["scan_0001_LG/rec_8bit"], ["scan_0001_LG_rec_8bit"]),
        (["r/scan_1/rec_8bit", "r/scan_2/rec_8bit"], ["scan_1_rec_8bit", "scan_2_rec_8bit"]),
        (["r/mouse/mouse_left.tif"], ["mouse_left"]),
        (["r/-n.tif", "r/\x1b[31mred\u202e.tif"], ["n", "31mred"]),
        (["r/1/s/volume.tif", "r/2/s/volume.tif"], ["1_s", "2_s"]),
    ],
)
def test_volume_ids(paths: list[str], ids: list[str]) -> None:
    assert volume_ids([path.split("/") for path in paths]) == ids


def test_ids_that_only_a_file_system_takes_for_one_are_told_apart() -> None:
    for same in (
        ["Ant.tif", "ant.tif"],
        ["a b.tif", "a_b.tif", "a+b.tif"],
        ["\uff11.tif", "1.tif"],
    ):
        ids = volume_ids([("r", name) for name in same])
        assert len({unicodedata.normalize("NFKC", i).casefold() for i in ids}) == len(same)


@pytest.mark.parametrize("name", ["x" * 246, "標" * 84, "a" * 300])
def test_long_names_fit_into_file_names_and_stay_apart(name: str) -> None:
    ids = volume_ids([("r", name, "b.tif"), ("r", name + "y", "b.tif"), ("r", name + ".tif")])
    assert len(set(ids)) == 3
    # Behind it come "-12.zarr", or ".json" and what a file is called while it is written.
    assert max(len(i.encode()) for i in ids) <= MAX_BYTES < 255 - len(".json") - 41


def test_an_id_stays_when_other_volumes_come() -> None:
    path = ("r", "scan_0001", "rec_8bit")
    (alone,) = volume_ids([path])
    assert volume_ids([("r", "a.tif"), path, ("r", "scan_0002", "rec_8bit")])[1] == alone
    # Also when the archive moves.
    assert volume_ids([("elsewhere", *path[1:])]) == [alone]


NAMES = st.sampled_from(["a", "A", "b", "volume", "recon", "a_b", "x y", "ü", "a.tif", "a.h5", "_"])


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=4).map(tuple), unique=True, max_size=12))
def test_volume_ids_are_unique_and_safe(below: list[tuple[str, ...]]) -> None:
    paths = [("root", *names) for names in below]
    ids = volume_ids(paths)
    assert len({name.lower() for name in ids}) == len(paths)
    for name in ids:
        assert name
        assert all(c.isalnum() or c in "._-" for c in name)
        assert name[0] not in ".-"
    # Another order of finding them gives each the same id.
    backwards = volume_ids(paths[::-1])
    assert backwards[::-1] == ids


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.text(min_size=1, max_size=90), unique=True, max_size=8))
def test_any_name_gives_an_id(names: list[str]) -> None:
    ids = volume_ids([("root", name) for name in names])
    assert len({unicodedata.normalize("NFKC", i).casefold() for i in ids}) == len(names)
    for volume_id in ids:
        assert volume_id.isprintable()
        assert "/" not in volume_id
        assert len(volume_id.encode()) <= MAX_BYTES
