"""The private parts of zarr that ctray uses are where they were, and used in one module only."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from packaging.requirements import Requirement
from zarr.abc.codec import BytesBytesCodec
from zarr.storage import MemoryStore, WrapperStore

from ctray.volumes import zarr_internals
from ctray.volumes.zarr_internals import (
    CountingStore,
    array_of,
    chunk_key,
    chunks_per_shard,
    has_index_at_start,
    has_usual_index,
    native_dtype,
    object_shape,
    parse_metadata,
    v2_codecs,
    v3_codecs,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def test_one_minor_version_of_zarr_is_asked_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (asked,) = [r for text in project["dependencies"] if (r := Requirement(text)).name == "zarr"]
    assert version("zarr") in asked.specifier
    major, minor = (int(n) for n in version("zarr").split(".")[:2])
    assert f"{major}.{minor + 1}.0" not in asked.specifier
    assert f"{major}.{minor - 1}.9" not in asked.specifier


def test_no_other_module_uses_private_parts() -> None:
    private = re.compile(r"zarr\.core\b|def _(decode_single|encode_single|with_store|get_many)\b")
    users = [
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "ctray").rglob("*.py")
        if private.search(path.read_text())
    ]
    assert users == ["ctray/volumes/zarr_internals.py"]


@pytest.mark.parametrize(
    ("owner", "method", "parameters"),
    [
        (BytesBytesCodec, "_decode_single", ["self", "chunk_data", "chunk_spec"]),
        (WrapperStore, "_with_store", ["self", "store"]),
        (WrapperStore, "_get_many", ["self", "requests"]),
    ],
)
def test_methods_that_are_overridden(owner: Any, method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, method)).parameters) == parameters


def test_metadata_of_zarr_3() -> None:
    store = MemoryStore()
    made = zarr.create_array(store, shape=(9, 8, 8), chunks=(2, 4, 8), shards=(8, 8, 8), dtype="u2")
    assert chunks_per_shard(made.metadata) == 4 * 2 * 1
    assert object_shape(made.metadata) == (8, 8, 8)
    assert native_dtype(made.metadata) == np.uint16
    assert chunk_key(made, (1, 0, 0)) == "c/1/0/0"
    assert v3_codecs(made) == ("little", [made.compressors[0].to_dict()])
    assert has_usual_index(made)
    assert not has_index_at_start(made)


def test_metadata_of_zarr_2() -> None:
    made = zarr.create_array(
        MemoryStore(), shape=(9, 8, 8), chunks=(2, 4, 8), dtype=">u2", zarr_format=2
    )
    assert chunks_per_shard(made.metadata) == 1
    assert object_shape(made.metadata) == (2, 4, 8)
    assert native_dtype(made.metadata) == np.dtype(">u2")
    assert chunk_key(made, (4, 1, 0)) == "4.1.0"
    order, filters, compressor = v2_codecs(made)
    assert (order, filters) == ("C", None)
    assert compressor.codec_id == "zstd"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_from_its_document_counts_what_it_reads(zarr_format: Any) -> None:
    store = MemoryStore()
    voxels = np.arange(64, dtype=np.uint16).reshape(4, 4, 4)
    made = zarr.create_array(
        store, shape=(4, 4, 4), chunks=(2, 4, 4), dtype="u2", zarr_format=zarr_format
    )
    made[:] = voxels
    document: Any = made.metadata.to_dict()
    counted: list[int] = []
    metadata = zarr_internals.bounded_metadata(parse_metadata(document, store))
    array = array_of(metadata, CountingStore(store, counted.append, 10**6))
    np.testing.assert_array_equal(array[:], voxels)
    stored = [
        len(value)
        for key, value in store._store_dict.items()
        if not key.endswith(("zarr.json", ".zarray", ".zattrs"))
    ]
    assert sorted(counted) == sorted(stored)
    small = array_of(metadata, CountingStore(store, counted.append, min(stored) - 1))
    with pytest.raises(ValueError, match=r"more than|an object of"):
        small[:]
