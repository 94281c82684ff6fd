"""Any Zarr metadata end in a volume that reads, or in one error of ours: 2,000 documents."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poison import confinement
from zarr_makers import axes_of, halved, scale, translation, write_array, write_image

from ctray.archive.catalog import build_catalog
from ctray.core.errors import CtrayError
from ctray.core.geometry import Box, as_triple
from ctray.volumes.volume import open_volume

SHAPE = (12, 14, 16)
# What may stand anywhere in a document.
VALUES = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            -1,
            0,
            1,
            3,
            2**31,
            2**63,
            10**30,
            1e308,
            -0.5,
            float("nan"),
            float("inf"),
            "",
            "zyx",
            "../..",
            "/",
            "NaN",
            "0x7f",
            "\x00",
            "\ud800",
            "é" * 300,
            [],
            {},
            [[]],
            [0, 0, 0],
            [1, 2],
            ["x", "y", "z"],
            {"name": "bytes"},
            {"id": "pickle"},
            {"name": "gzip", "configuration": {"level": 9}},
            {"id": "zlib", "level": 9},
        ]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-5, 2**40), max_size=4),
)
WORDS = st.sampled_from(
    [
        *("<u2", "|b1", ">f4", "<c16", "S9", "|O", "<M8[ns]", "float16", "r16", "int32", "bool"),
        *("F", "C", "/", ".", "0.6", "gzip", "zstd", "blosc", "transpose", "sharding_indexed"),
    ]
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "drop", "twin"]), VALUES | WORDS),
    min_size=1,
    max_size=3,
)


def noise() -> np.ndarray:
    return np.random.default_rng(45).integers(0, 250, SHAPE, dtype=np.uint16)


def write_all(folder: Path) -> None:
    fine, coarse = noise(), halved(noise())
    steps: Any = [[scale(1, 2, 3)], [scale(2, 4, 6), translation(0.5, 1, 1.5)]]
    for version in ("0.4", "0.5"):
        write_image(folder / version, [fine, coarse], steps, axes=axes_of("zyx"), version=version)
    write_array(folder / "v2", fine, zarr_format=2, chunks=(8, 8, 8), dimension_names=None)
    write_array(folder / "v3", fine, chunks=(8, 8, 8), dimension_names=("z", "y", "x"))
    write_array(folder / "shards", fine, chunks=(4, 4, 4), shards=(8, 8, 8))


# Volume and document of it that is changed.
TARGETS = [
    ("0.4", ".zattrs"),
    ("0.4", "0/.zarray"),
    ("0.5", "zarr.json"),
    ("0.5", "0/zarr.json"),
    ("0.5", "1/zarr.json"),
    ("v2", ".zarray"),
    ("v3", "zarr.json"),
    ("shards", "zarr.json"),
]


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document with every key or index in it."""
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield value, key
        yield from places_of(inner)


def changed(document: Any, changes: list[tuple[int, str, Any]]) -> Any:
    document = copy.deepcopy(document)
    for number, how, value in changes:
        places = list(places_of(document))
        if not places:
            break
        holder, key = places[number % len(places)]
        if how == "set":
            # A copy: values are shared by all examples.
            holder[key] = copy.deepcopy(value)
        elif how == "drop":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[f"{key}s"] = copy.deepcopy(holder[key])
    return document


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_all(folder)
    return folder


def judge(folder: Path) -> None:
    """Open and read as a catalog, and as whoever works on the volume, would."""
    said = []
    try:
        said = [str(entry.reason) for entry in build_catalog(str(folder))]
    except CtrayError as error:
        said = [str(error)]
    try:
        volume = open_volume(str(folder))
        stop = as_triple([min(n, 8) for n in volume.shape], "stop")
        voxels = volume.read(Box(start=(0, 0, 0), stop=stop))
        assert voxels.shape == stop
        assert voxels.dtype == volume.dtype
        assert str(volume.plain_scale)
    except CtrayError as error:
        said.append(str(error))
        assert said[-1].startswith(str(folder))
    assert not any("\n" in text or len(text) > 1500 for text in said)


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("target", TARGETS, ids="/".join)
@settings(
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=CHANGES)
def test_any_document_ends_in_a_volume_or_a_named_refusal(
    volumes: Path, target: tuple[str, str], changes: list[tuple[int, str, Any]]
) -> None:
    name, document = target
    path = volumes / name / document
    sound = path.read_text()
    path.write_text(json.dumps(changed(json.loads(sound), changes)))
    try:
        with confinement(2**30, 20):
            judge(volumes / name)
    finally:
        path.write_text(sound)
