"""The table of formats: names find their reader, and a new format is one class and one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctray.archive.catalog import build_catalog, read_catalog, write_catalog
from ctray.archive.importing import import_volume
from ctray.core.errors import InvalidVolumeError
from ctray.formats import registry
from ctray.formats.file_access import damaged
from ctray.formats.opening import open_source
from ctray.formats.registry import FORMATS, Format, format_of, reader_of, register, split_suffix
from ctray.formats.source import VolumeSource, check_shape
from ctray.storage import store
from ctray.volumes.volume import open_volume


class VoxSource(VolumeSource):
    """A made-up format: three uint32 for z, y, x, then voxels of uint16, all little-endian."""

    kind = "vox"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        with store.open_binary(url) as file:
            head = file.read(12)
        if len(head) != 12:
            raise damaged(url, "VOX", "truncated header")
        self.shape = check_shape(url, np.frombuffer(head, "<u4").tolist())
        self.dtype = np.dtype(np.uint16)

    def _read(self, start: int, stop: int) -> np.ndarray:
        plane = self.shape[1] * self.shape[2]
        with store.open_binary(self.url) as file:
            file.seek(12 + 2 * start * plane)
            data = file.read(2 * (stop - start) * plane)
        if len(data) != 2 * (stop - start) * plane:
            raise damaged(self.url, "VOX", f"truncated in slices [{start}, {stop})")
        return np.frombuffer(data, "<u2").reshape(stop - start, *self.shape[1:])

    def close(self) -> None:
        """Nothing stays open between reads."""


VOX = Format(name="VOX (.vox)", suffixes=(".vox",), file=VoxSource)


@pytest.fixture
def _vox(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_BY_SUFFIX", "_BY_SIGNATURE", "_READERS"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    register(VOX)


def write_vox(path: Path, volume: np.ndarray) -> None:
    path.write_bytes(np.array(volume.shape, "<u4").tobytes() + volume.astype("<u2").tobytes())


@pytest.mark.usefixtures("_vox")
def test_a_new_format_is_catalogued_and_imported(tmp_path: Path) -> None:
    volume = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    archive = tmp_path / "archive"
    archive.mkdir()
    write_vox(archive / "mouse.vox", volume)
    write_vox(archive / "short.vox", volume[:0])
    catalog = build_catalog(str(archive))
    write_catalog(catalog, str(tmp_path / "catalog.parquet"))
    ok, failed = read_catalog(str(tmp_path / "catalog.parquet"))
    assert (ok.volume_id, ok.kind, ok.shape, ok.status) == ("mouse", "vox", (5, 6, 7), "ok")
    assert (failed.volume_id, failed.status) == ("short", "failed")
    assert "short.vox: axis z of shape 0 x 6 x 7 has length 0" in str(failed.reason)
    import_volume(ok.url, str(tmp_path / "mouse.zarr"))
    imported = open_volume(str(tmp_path / "mouse.zarr"))
    np.testing.assert_array_equal(imported.read_level(0), volume)
    with pytest.raises(InvalidVolumeError, match=r"kind vox has no datasets inside"):
        open_source(ok.url, dataset="data")


def test_each_suffix_and_signature_belongs_to_one_format() -> None:
    suffixes = [suffix for known in FORMATS for suffix in known.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)
    signatures = [start for known in FORMATS for start in known.signatures]
    assert len(signatures) == len(set(signatures))


def test_a_kind_has_one_reader_and_unknown_kinds_are_refused() -> None:
    readers = {reader for known in FORMATS for reader in (known.file, known.slices) if reader}
    assert all(reader_of(reader.kind) is reader for reader in readers)
    with pytest.raises(InvalidVolumeError, match=r"no reader for volumes of kind 'vox'; known"):
        reader_of("vox")


@pytest.mark.parametrize(
    ("name", "stem", "suffix", "is_known"),
    [
        ("scan.tif", "scan", ".tif", True),
        ("scan.ome.TIFF", "scan", ".tiff", True),
        ("scan.0001.vol.info", "scan.0001", ".vol.info", True),
        ("scan.ome.zarr", "scan", ".zarr", False),
        ("scan.ome.zarr.zip", "scan", ".zarr.zip", True),
        ("scan.info", "scan.info", "", False),
        ("scan.png", "scan.png", "", True),
        ("scan.tif.gz", "scan.tif.gz", "", True),
        ("readme.txt", "readme.txt", "", False),
        ("tif", "tif", "", False),
    ],
)
def test_names(name: str, stem: str, suffix: str, is_known: bool) -> None:
    assert split_suffix(name) == (stem, suffix)
    assert (format_of(name) is not None) == is_known
