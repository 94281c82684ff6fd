"""Volumes that are broken on purpose, each in one way; a seed says where."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ctray.core.geometry import Box
from ctray.localization.python_crop import crop
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.working import read_working
from ctray.volumes.writer import create_volume

ABSURD_SIDE = 10**9
# What the bombs unpack to: more than a test's process may hold.
BOMB_BYTES = 8 * 2**30
_RLE_BLOCK = 128 * 2**10


@contextmanager
def confinement(extra_bytes: int, seconds: int) -> Iterator[None]:
    """Let the process take no more memory than now and `extra_bytes`, and end after `seconds`."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    earlier = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
        resource.setrlimit(resource.RLIMIT_AS, before)


def write_good(url: str, voxels: np.ndarray, *, ome_version: str = "0.5", levels: int = 2) -> None:
    """A volume of `levels` levels with chunks as `create_volume` chooses them."""
    writer = create_volume(
        url,
        shape=voxels.shape,
        dtype=voxels.dtype,
        voxel_size=None,
        ome_version=ome_version,
        num_levels=levels,
    )
    writer.write(Box.whole(voxels.shape), voxels)
    writer.build_pyramid()
    writer.commit({})


def zstd_bomb(num_bytes: int, *, tells: bool) -> bytes:
    """A zstd frame of zeros: `num_bytes` in blocks of one repeated byte (RFC 8878, 3.1.1).

    `tells` writes the size into the frame's header; without it the frame says only how large a
    window its reader needs.
    """
    blocks = -(-num_bytes // _RLE_BLOCK)
    # A window of 128 KiB, no checksum; the first two bits tell that 8 bytes of size follow.
    told = num_bytes.to_bytes(8, "little") if tells else b""
    header = bytes([0b11_0_0_0_0_00 if tells else 0, 7 << 3]) + told
    block = ((_RLE_BLOCK << 3) | (1 << 1)).to_bytes(3, "little") + b"\0"
    last = ((_RLE_BLOCK << 3) | (1 << 1) | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + header + block * (blocks - 1) + last


def _data_objects(url: str) -> list[tuple[str, int]]:
    names = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "json")
    found = [(k, n) for k, n in store.list_tree(url) if not k.endswith(names)]
    return sorted(found)


def _cut_objects(url: str, rng: np.random.Generator) -> None:
    for key, size in _data_objects(url):
        data = store.read_bytes(store.join(url, key))
        store.write_bytes(store.join(url, key), data[: int(size * rng.uniform(0.1, 0.9))])


def _edit(url: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the metadata of every level; 0.4 and 0.5."""
    for entry in store.list_dir(url):
        if not entry.is_dir:
            continue
        for name in ("zarr.json", ".zarray"):
            where = store.join(url, entry.name, name)
            if store.exists(where):
                metadata = store.read_json(where)
                change(metadata)
                store.write_json(where, metadata)


def truncated_shard(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    write_good(url, voxels)
    _cut_objects(url, rng)


def truncated_chunk(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    write_good(url, voxels, ome_version="0.4")
    _cut_objects(url, rng)


def absurd_shape(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    write_good(url, voxels, levels=1)
    _edit(url, lambda metadata: metadata.update(shape=[ABSURD_SIDE] * 3))


def absurd_chunk(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    def change(metadata: dict[str, Any]) -> None:
        metadata["chunks"] = [ABSURD_SIDE] * 3

    write_good(url, voxels, ome_version="0.4")
    _edit(url, change)


def absurd_shard(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    """Shards of 10^24 chunks, whose index alone fills every memory."""

    def change(metadata: dict[str, Any]) -> None:
        chunk = metadata["codecs"][0]["configuration"]["chunk_shape"]
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [n * 10**8 for n in chunk]

    write_good(url, voxels)
    _edit(url, change)


def unknown_codec(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    def change(metadata: dict[str, Any]) -> None:
        if "compressor" in metadata:
            metadata["compressor"]["id"] = "quantum"
        else:
            metadata["codecs"][0]["configuration"]["codecs"][1]["name"] = "quantum"

    write_good(url, voxels, ome_version=_either(rng))
    _edit(url, change)


def _bomb(url: str, voxels: np.ndarray, *, tells: bool) -> None:
    write_good(url, voxels, ome_version="0.4")
    bomb = zstd_bomb(BOMB_BYTES, tells=tells)
    for key, _ in _data_objects(url):
        store.write_bytes(store.join(url, key), bomb)


def bomb_that_tells(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    _bomb(url, voxels, tells=True)


def bomb_that_hides(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    _bomb(url, voxels, tells=False)


def cut_metadata(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    write_good(url, voxels)
    below = ("", "0", "1")[int(rng.integers(3))]
    where = store.join(url, below, "zarr.json")
    data = store.read_bytes(where)
    store.write_bytes(where, data[: len(data) // 2])


def wrong_dtype(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    def change(metadata: dict[str, Any]) -> None:
        if "dtype" in metadata:
            metadata["dtype"] = "<u8"
        else:
            metadata["data_type"] = "uint64"

    write_good(url, voxels, ome_version=_either(rng))
    _edit(url, change)


def missing_level(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    write_good(url, voxels)
    gone = str(rng.integers(2))
    for key, _ in list(store.list_tree(url)):
        if key.startswith(f"{gone}/"):
            store.delete_file(store.join(url, key))


def all_nan(url: str, voxels: np.ndarray, rng: np.random.Generator) -> None:
    write_good(url, np.full(voxels.shape, np.nan, np.float32))


Poison = Callable[[str, np.ndarray, np.random.Generator], None]
# By name: what breaks a volume so that it cannot be opened or read.
POISONS: dict[str, Poison] = {
    made.__name__: made
    for made in (
        truncated_shard,
        truncated_chunk,
        absurd_shape,
        absurd_chunk,
        absurd_shard,
        unknown_codec,
        bomb_that_tells,
        bomb_that_hides,
        cut_metadata,
        wrong_dtype,
        missing_level,
    )
}
# Volumes that are sound as arrays and hold nothing to find.
BARREN: dict[str, Poison] = {"all_nan": all_nan}


def write_poisoned(url: str, name: str, voxels: np.ndarray, seed: int) -> None:
    """The volume of `voxels` at `url`, broken in the way `name`."""
    {**POISONS, **BARREN}[name](url, voxels, np.random.default_rng([seed, *name.encode()]))


def _either(rng: np.random.Generator) -> str:
    return ("0.4", "0.5")[int(rng.integers(2))]


def read_it(url: str) -> None:
    """What localizing reads of a volume."""
    read_working(open_volume(url), 16)


def read_all(url: str) -> None:
    """Every voxel of level 0."""
    volume = open_volume(url)
    for _ in volume.iter_slabs():
        pass


def crop_it(url: str) -> None:
    """A crop of the inner half of a volume, written beside it."""
    volume = open_volume(url)
    box = Box(
        start=tuple(n // 4 for n in volume.shape),  # type: ignore[arg-type]
        stop=tuple(n - n // 4 for n in volume.shape),  # type: ignore[arg-type]
    )
    crop(volume, box, url + "-crop")


READERS: dict[str, Callable[[str], None]] = {
    "working": read_it,
    "level 0": read_all,
    "crop": crop_it,
}
