"""Zarr that was written to do harm: refused soon, by name, in little memory."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs as v3_numcodecs
from poison import READERS
from zarr.codecs import BytesCodec, ShardingCodec
from zarr_makers import axes_of, scale, write_array, write_image

from ctray.archive.catalog import build_catalog
from ctray.core.errors import CtrayError, InvalidVolumeError
from ctray.core.geometry import Box
from ctray.crops.cutting import write_crop
from ctray.crops.restoring import restore
from ctray.volumes.volume import open_volume
from ctray.volumes.zarr_json import MAX_DOCUMENT_BYTES

BOMB_BYTES = 2**25  # 32 MiB for chunks of 4 KiB
# Much less, and more than the window of lzma, which is 8 MiB.
BOUND_BYTES = 3 * 2**22


def noise(shape: tuple[int, ...] = (16, 16, 16), dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(44).integers(0, 250, shape).astype(dtype)


def refused(url: str | Path, match: str = "") -> None:
    with pytest.raises(InvalidVolumeError, match=match or None) as caught:
        open_volume(str(url)).read_level(0)
    text = str(caught.value)
    assert text.startswith(str(url))
    assert "\n" not in text
    assert len(text) < 700


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["zarr.json", ".zattrs"])
@pytest.mark.parametrize("where", ["", "0"])
def test_nested_brackets_cost_one_entry(tmp_path: Path, name: str, where: str) -> None:
    version = "0.5" if name == "zarr.json" else "0.4"
    good = write_array(tmp_path / "archive" / "good.zarr", noise())
    folder = tmp_path / "archive" / "deep.zarr"
    write_image(folder, [noise()], [[scale(1, 1, 1)]], axes=axes_of("zyx"), version=version)
    file = folder / where / (name if not where or version == "0.5" else ".zarray")
    for depth, message in ((200_000, "nested more than 100 deep"), (150, "nested more than 100")):
        brackets = "[" * depth + "]" * depth
        group = '{"zarr_format": 3, "node_type": "group", "attributes": '
        file.write_text(group + brackets + "}")
        refused(folder, message)
        catalog = build_catalog(str(tmp_path / "archive"))
        assert [(e.status, e.url) for e in catalog] == [("failed", str(folder)), ("ok", good)]


def test_large_documents_are_not_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "large.zarr"
    write_array(folder, noise())
    with (folder / "zarr.json").open("r+b") as file:
        file.truncate(200_000_000)
    refused(folder, "200,000,000 bytes, more than the 16,777,216 that ctray reads")
    # Small as bytes, and large in memory.
    lists = b'{"node_type": "array", "shape": [' + b"[]," * 2_000_000 + b"[]]}"
    assert len(lists) < MAX_DOCUMENT_BYTES
    (folder / "zarr.json").write_bytes(lists)
    refused(folder, "2,000,003 lists and objects")


def test_consolidated_metadata_of_a_large_group_are_read(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "g", mode="w")
    group.create_array("a", data=noise())
    path = tmp_path / "g" / "zarr.json"
    array = json.loads((tmp_path / "g" / "a" / "zarr.json").read_text())
    arrays = {f"image{n}/{level}": array for n in range(1500) for level in range(5)}

    def consolidate(document: dict[str, Any]) -> None:
        document["consolidated_metadata"] = {"kind": "inline", "metadata": arrays}

    edit(path, consolidate)
    assert path.stat().st_size > 3_000_000
    assert [e.url for e in build_catalog(str(tmp_path))] == [str(tmp_path / "g" / "a")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"node_type": "array", "node_type": "group"}', "'node_type' has two values"),
        ('{"zarr_format": 3, "node_type": "array", "shape": [1' + "0" * 5000 + "]}", "digits"),
        ("{", "no JSON"),
        ("[]", "list for an object"),
        ("\xff\xfe", "no JSON"),
        ("", "no JSON"),
    ],
)
def test_documents_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "zarr.json").write_bytes(text.encode("latin-1"))
    refused(tmp_path / "v", message)


def test_a_key_that_says_the_same_twice_is_read(tmp_path: Path) -> None:
    write_array(tmp_path / "v", noise())
    path = tmp_path / "v" / "zarr.json"
    path.write_text('{"node_type": "array",' + path.read_text().lstrip()[1:])
    np.testing.assert_array_equal(open_volume(str(tmp_path / "v")).read_level(0), noise())


def test_groups_in_groups_end_soon(tmp_path: Path) -> None:
    good = write_array(tmp_path / "good.zarr", noise())
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(900):
            os.mkdir("g", dir_fd=here)
            inner = os.open("g", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
            file = os.open("zarr.json", os.O_WRONLY | os.O_CREAT, dir_fd=here)
            os.write(file, b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
            os.close(file)
    finally:
        os.close(here)
    catalog = build_catalog(str(tmp_path))
    assert [e.url for e in catalog] == [good]
    (deep,) = catalog.without_volume
    assert deep.url.endswith("/g" * 64)
    assert "folders deep" in deep.reason


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "..",
        ".",
        "",
        "a/../../secret",
        "%2e%2e/secret",
        "/etc",
        "s3://bucket/key",
        "file:///etc",
        "C:\\data",
        "..\\secret",
        "0/",
        "0\x00",
        5,
        None,
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_levels_outside_of_the_group_are_refused(tmp_path: Path, path: Any, version: str) -> None:
    write_array(tmp_path / "secret", noise(), zarr_format=2 if version == "0.4" else 3)
    folder = tmp_path / "v"
    write_image(folder, [noise()], [[scale(1, 1, 1)]], axes=axes_of("zyx"), version=version)

    def change(document: dict[str, Any]) -> None:
        attributes = document["attributes"]["ome"] if version == "0.5" else document
        attributes["multiscales"][0]["datasets"][0]["path"] = path

    edit(folder / ("zarr.json" if version == "0.5" else ".zattrs"), change)
    refused(folder, "lies outside of the image's group")


def test_levels_in_folders_of_the_group_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_image(folder, [noise()], [[scale(1, 1, 1)]], axes=axes_of("zyx"))
    (folder / "levels").mkdir()
    (folder / "0").rename(folder / "levels" / "finest level")

    def change(document: dict[str, Any]) -> None:
        document["multiscales"][0]["datasets"][0]["path"] = "levels/finest level"

    edit(folder / ".zattrs", change)
    np.testing.assert_array_equal(open_volume(str(folder)).read_level(0), noise())


@pytest.mark.parametrize("ome_version", ["0.4", "0.5"])
def test_a_crop_restores_from_its_own_surround_alone(tmp_path: Path, ome_version: str) -> None:
    volume = open_volume(write_array(tmp_path / "v", noise(), zarr_format=2))
    box = Box(start=(4, 4, 4), stop=(12, 12, 12))
    url = str(tmp_path / "crop")
    write_crop(volume, box, url, provenance={}, surround_size=8, ome_version=ome_version)
    restored = restore(url, str(tmp_path / "restored"))
    whole = open_volume(restored.url).read_level(0)
    np.testing.assert_array_equal(whole[box.slices], noise()[box.slices])
    assert whole[0].std() > 0
    name = "zarr.json" if ome_version == "0.5" else ".zattrs"
    for wrong in ({"path": "../v"}, {"factors": [0, 1, 1]}, {"factors": "x"}, {"path": None}):
        sound = (tmp_path / "crop" / name).read_text()

        def change(document: dict[str, Any], wrong: dict[str, Any] = wrong) -> None:
            document.get("attributes", document)["ctray"]["surround"].update(wrong)

        edit(tmp_path / "crop" / name, change)
        with pytest.raises(CtrayError, match="crop"):
            restore(url, str(tmp_path / "again"))
        (tmp_path / "crop" / name).write_text(sound)


def zarray(**changes: Any) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": [16, 16, 16],
        "chunks": [16, 16, 16],
        "dtype": "|u1",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        **changes,
    }


def write_v2(folder: Path, chunk: bytes, **changes: Any) -> Path:
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps(zarray(**changes)))
    (folder / "0.0.0").write_bytes(chunk)
    return folder


class Payload:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("key", ["filters", "compressor"])
def test_chunks_run_no_code(tmp_path: Path, key: str) -> None:
    trace = tmp_path / "trace"
    codec: Any = {"id": "pickle"}
    chunk = pickle.dumps(Payload(trace))
    folder = write_v2(tmp_path / "v", chunk, **{key: [codec] if key == "filters" else codec})
    refused(folder, "codec 'pickle' is not read")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": [{"id": "msgpack2"}]}, "codec 'msgpack2' is not read"),
        ({"filters": [{"id": "vlen-bytes"}]}, "codec 'vlen-bytes' is not read"),
        ({"filters": [{"id": "zfpy"}]}, "codec 'zfpy' is not read"),
        ({"filters": [{"id": "packbits"}] * 40}, "40 codecs in a row, more than 16"),
        ({"filters": [{"id": "delta", "dtype": "S9999999"}]}, "codec delta of type 'S9999999'"),
        ({"filters": [{"id": "delta", "dtype": ["u1"] * 9}]}, "codec delta of type"),
        ({"filters": [{}]}, "a codec has no name"),
        ({"filters": ["zlib"]}, "a codec has no name"),
        ({"filters": {"id": "zlib"}}, "filters are no list"),
        ({"shape": [16, 16, True]}, "shape is no list of whole numbers"),
        ({"shape": [16, 16, -16]}, "shape is no list of whole numbers"),
        ({"shape": "16"}, "shape is no list of whole numbers"),
        ({"chunks": [0, 16, 16]}, ""),
        ({"chunks": [16, 16]}, ""),
        ({"chunks": [1e308, 16, 16]}, ""),
        ({"chunks": [10**30, 16, 16]}, ""),
        ({"dtype": "S10"}, ""),
        ({"dtype": "|O"}, ""),
        ({"dtype": [["a", "<u2"], ["b", "<u2"]]}, ""),
        ({"dtype": 5}, ""),
        ({"order": "K"}, ""),
        ({"fill_value": "x" * 100}, ""),
        ({"fill_value": {"a": [1]}}, ""),
        ({"zarr_format": 7}, "zarr_format is 7, not 2"),
        ({"dimension_separator": "../"}, ""),
    ],
)
def test_arrays_of_nonsense(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    refused(write_v2(tmp_path / "v", bytes(16**3), **changes), message)


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ([2**15] * 3, [32, 32, 32], "1,073,741,824 chunks, more than 268,435,456"),
        ([100] * 3, [1, 1, 1], r"1,000,000 chunks, more than 262,144 of less than 512 voxels"),
        ([2**10] * 3, [1, 1, 256], "4,194,304 chunks, more than"),
    ],
)
def test_chunks_without_number(
    tmp_path: Path, shape: list[int], chunks: list[int], message: str
) -> None:
    refused(write_v2(tmp_path / "v", b"", shape=shape, chunks=chunks), message)


def deflated(num_bytes: int) -> bytes:
    packer = zlib.compressobj(9)
    piece = bytes(2**20)
    return b"".join(packer.compress(piece) for _ in range(num_bytes // 2**20)) + packer.flush()


LZMA_RAW = numcodecs.LZMA(format=3, filters=[{"id": 33, "preset": 6}])
PACKERS: dict[str, Any] = {
    "zlib": numcodecs.Zlib(),
    "gzip": numcodecs.GZip(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
    "lzma alone": numcodecs.LZMA(format=2, check=-1),
    "lzma raw": LZMA_RAW,
    "zstd": numcodecs.Zstd(),
    "lz4": numcodecs.LZ4(),
    "blosc": numcodecs.Blosc(cname="zstd"),
}


@cache
def bomb_of(name: str) -> bytes:
    return bytes(PACKERS[name].encode(bytes(BOMB_BYTES)))


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("place", ["compressor", "filter", "filter below a compressor"])
def test_bombs_in_zarr_2(tmp_path: Path, peak_bytes: Any, name: str, place: str) -> None:
    chunk, config = bomb_of(name), PACKERS[name].get_config()
    if place == "compressor":
        changes: dict[str, Any] = {"compressor": config}
    elif place == "filter":
        changes = {"filters": [config]}
    else:
        changes = {"filters": [config], "compressor": {"id": "zlib", "level": 9}}
        chunk = zlib.compress(chunk, 9)
    folder = write_v2(tmp_path / "v", chunk, **changes)
    refused(folder, "unpacks to|bytes, more than|has .* bytes")
    assert peak_bytes(lambda: refused(folder)) < BOUND_BYTES


def test_the_bomb_of_4_gib(tmp_path: Path, peak_bytes: Any) -> None:
    chunk = deflated(2**32 // 16) * 16
    folder = write_v2(tmp_path / "v", chunk, filters=[{"id": "zlib", "level": 1}])
    assert peak_bytes(lambda: refused(folder)) < BOUND_BYTES
    for read in READERS.values():
        with pytest.raises(InvalidVolumeError):
            read(str(folder))


@pytest.mark.parametrize(
    "filters",
    [
        [{"id": "packbits"}],
        [{"id": "packbits"}] * 16,
        [{"id": "delta", "dtype": "f8", "astype": "u1"}],
        [{"id": "astype", "encode_dtype": "u1", "decode_dtype": "f8"}],
        [{"id": "fixedscaleoffset", "dtype": "f8", "astype": "u1", "scale": 1, "offset": 0}] * 8,
    ],
)
def test_filters_that_widen_are_bounded_too(
    tmp_path: Path, peak_bytes: Any, filters: list[Any]
) -> None:
    folder = write_v2(tmp_path / "v", bytes(2**15), filters=filters)
    assert peak_bytes(lambda: refused(folder)) < BOUND_BYTES


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("name", ["Zlib", "GZip", "BZ2", "LZMA", "Zstd", "LZ4", "Blosc"])
@pytest.mark.parametrize("place", ["alone", "after zstd", "in a shard"])
def test_bombs_in_zarr_3(tmp_path: Path, peak_bytes: Any, name: str, place: str) -> None:
    codec = getattr(v3_numcodecs, name)()
    bomb = bomb_of(name.lower())
    options: dict[str, Any] = {"compressors": [codec]}
    if place == "after zstd":
        options = {"compressors": [codec, v3_numcodecs.Zstd()]}
        bomb = bytes(numcodecs.Zstd(level=19).encode(bomb))
    elif place == "in a shard":
        inner = ShardingCodec(chunk_shape=(8, 16, 16), codecs=[BytesCodec(), codec])
        options = {"serializer": inner, "compressors": None}
        index = np.array([0, len(bomb), 2**64 - 1, 2**64 - 1], "<u8").tobytes()
        bomb += index + bytes(numcodecs.CRC32C(location="end").encode(index))[-4:]
    folder = tmp_path / "v"
    write_array(folder, noise(), **options)
    (folder / "c" / "0" / "0" / "0").write_bytes(bomb)
    refused(folder)
    assert peak_bytes(lambda: refused(folder)) < BOUND_BYTES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["codecs"].append({"name": "numcodecs.pickle"}), "'numcodecs.pickle' is not"),
        (lambda d: d["codecs"].append({"name": "numcodecs.zfpy"}), "'numcodecs.zfpy' is not read"),
        (lambda d: d["codecs"].append({"name": "vlen-utf8"}), "codec 'vlen-utf8' is not read"),
        (lambda d: d["codecs"].append("crc32"), "codec 'crc32' is not read"),
        (lambda d: d["codecs"].append(5), "a codec has no name"),
        (lambda d: d["codecs"].append({"name": "zstd", "configuration": 5}), "are no object"),
        (lambda d: d.update(codecs=[]), "codecs are no list"),
        (lambda d: d.update(codecs=d["codecs"] * 20), "40 codecs in a row, more than 16"),
        (lambda d: d.pop("codecs"), "codecs are no list"),
        (lambda d: d.pop("chunk_grid"), "damaged"),
        (lambda d: d.update(chunk_grid=[[]]), "damaged"),
        (lambda d: d.update(data_type="r8"), ""),
        (lambda d: d.update(data_type={"name": "numpy.datetime64"}), ""),
        (lambda d: d.update(fill_value=[1] * 1000), "damaged"),
        (lambda d: d.update(storage_transformers=[{"name": "x"}]), ""),
        (lambda d: d.update(extension=5), "damaged"),
        (lambda d: d.update(chunk_key_encoding={"name": "default", "separator": "../"}), ""),
        (lambda d: d.update(dimension_names=["a"] * 3), "two axes of shape"),
        (lambda d: d.update(dimension_names=["y", "x"]), "name 2 axes"),
    ],
)
def test_arrays_of_nonsense_in_zarr_3(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    write_array(tmp_path / "v", noise())
    edit(tmp_path / "v" / "zarr.json", change)
    refused(tmp_path / "v", message)


def sharding(chunk: int, codecs: list[Any], **more: Any) -> dict[str, Any]:
    settings = {"chunk_shape": [chunk] * 3, "codecs": codecs, **more}
    return {"name": "sharding_indexed", "configuration": settings}


@pytest.mark.parametrize(
    ("codecs", "message"),
    [
        ([sharding(8, [{"name": "bytes"}], index_codecs=[{"name": "gzip"}])], "'gzip' is not"),
        ([sharding(8, [{"name": "bytes"}], index_codecs=5)], "index_codecs are no list"),
        ([sharding(8, [sharding(4, [sharding(2, [{"name": "bytes"}])])])], "more than 2 deep"),
        ([sharding(2**20, [sharding(1, [{"name": "bytes"}])])], ""),
        ([sharding(8, [{"name": "numcodecs.msgpack2"}])], "'numcodecs.msgpack2' is not read"),
    ],
)
def test_shards_of_nonsense(tmp_path: Path, codecs: list[Any], message: str) -> None:
    write_array(tmp_path / "v", noise())
    edit(tmp_path / "v" / "zarr.json", lambda d: d.update(codecs=codecs))
    refused(tmp_path / "v", message)


def test_shards_in_shards_with_an_endless_index(tmp_path: Path) -> None:
    write_array(tmp_path / "v", noise())

    def change(document: dict[str, Any]) -> None:
        document["shape"] = [2**16] * 3
        document["chunk_grid"]["configuration"]["chunk_shape"] = [2**11] * 3
        document["codecs"] = [sharding(2**10, [sharding(1, [{"name": "bytes"}])])]

    edit(tmp_path / "v" / "zarr.json", change)
    refused(tmp_path / "v", "a shard has 1,073,741,824 chunks")


@pytest.mark.parametrize("options", [{}, {"compressors": None}, {"shards": (16, 16, 16)}])
def test_an_object_that_is_too_large_is_not_read(
    tmp_path: Path, peak_bytes: Any, options: dict[str, Any]
) -> None:
    """Sparse: 4 GB that take no space."""
    write_array(tmp_path / "v", noise(), chunks=(8, 8, 8), **options)
    chunk = tmp_path / "v" / "c" / "0" / "0" / "0"
    with chunk.open("r+b") as file:
        file.truncate(4_000_000_000)
    assert peak_bytes(lambda: refused(tmp_path / "v")) < BOUND_BYTES


@pytest.mark.parametrize("options", [{}, {"compressors": None}, {"shards": (16, 16, 16)}])
def test_a_pipe_for_a_chunk_does_not_hang(tmp_path: Path, options: dict[str, Any]) -> None:
    write_array(tmp_path / "v", noise(), chunks=(8, 8, 8), **options)
    chunk = tmp_path / "v" / "c" / "0" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(CtrayError, match="pipe"):
        open_volume(str(tmp_path / "v")).read_level(0)


@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zattrs", ".zgroup"])
def test_a_pipe_for_metadata_does_not_hang(tmp_path: Path, name: str) -> None:
    (tmp_path / "v.zarr").mkdir()
    os.mkfifo(tmp_path / "v.zarr" / name)
    (entry,) = build_catalog(str(tmp_path))
    assert entry.status == "failed"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("datasets", "10000 levels"),
        ("axes", "30000 axes"),
        ("coordinateTransformations", "10001 transforms"),
    ],
)
def test_lists_without_end_are_refused(tmp_path: Path, key: str, message: str) -> None:
    folder = tmp_path / "v"
    outer = {"coordinateTransformations": [scale(1, 1, 1)]}
    write_image(folder, [noise()], [[scale(1, 1, 1)]], axes=axes_of("zyx"), multiscale=outer)

    def change(document: dict[str, Any]) -> None:
        document["multiscales"][0][key] *= 10_000

    edit(folder / ".zattrs", change)
    refused(folder, message)


def test_an_array_of_thousands_of_axes(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "v", b"", shape=[1] * 100_000, chunks=[1] * 100_000)
    refused(folder, "100000D array")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "scale", "scale": [1e308, 1e308, 1e308]},
        {"type": "scale", "scale": [10**400, 1, 1]},
        {"type": "scale", "scale": ["nan", 1, 1]},
        {"type": "scale", "scale": 5},
        {"type": "translation", "translation": [float("inf"), 0, 0]},
        {"type": "scale"},
        {},
        5,
    ],
)
def test_transforms_of_nonsense(tmp_path: Path, step: Any) -> None:
    folder = tmp_path / "v"
    axes = axes_of("zyx", "meter")
    write_image(folder, [noise()], [[scale(1, 1, 1)]], axes=axes)

    def change(document: dict[str, Any]) -> None:
        entry = document["multiscales"][0]["datasets"][0]
        entry["coordinateTransformations"].append(step)

    edit(folder / ".zattrs", change)
    refused(folder, "damaged OME metadata")
