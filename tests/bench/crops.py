"""How fast crops are copied and voxels are read, as ratios within one run.

``python tests/bench/crops.py --store URL`` writes a volume below URL (a folder, or ``s3://``),
measures, removes it, and prints a Markdown table. Every figure is the median of `--repeats` rounds;
in each round all ways run once, in turn, so that a ratio compares what ran side by side.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter

from ctray.geometry import Box
from ctray.grid import ShardGrid
from ctray.storage import store
from ctray.storage.crops import write_crop
from ctray.storage.encoding import default_encoding
from ctray.storage.manifest import MANIFEST
from ctray.storage.multiscale import plan_levels
from ctray.storage.parallel import bounded_map
from ctray.storage.volume import Volume, open_volume
from ctray.storage.writer import LevelLayout, create_volume

SIDE = 512
THREADS = 16


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--store", default=tempfile.gettempdir(), help="folder or s3://bucket/prefix"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=SIDE, help="side of the source, voxels")
    parser.add_argument(
        "--plain", action="store_true", help="source without checksums, as others write it"
    )
    parser.add_argument("--dtype", choices=["uint8", "uint16"], default="uint16")
    options = parser.parse_args()
    base = store.join(options.store, f"ctray-bench-{uuid.uuid4().hex[:8]}")
    where = "S3" if options.store.startswith("s3://") else "local disk"
    kind = "without checksums" if options.plain else "with CRC-32C"
    what = f"{where}, {options.size}³ {options.dtype} {kind}"
    print(f"{what}, {machine()}, {datetime.now(UTC):%d %B %Y}\n")
    print("| what | seconds | MB voxels/s | ratio |\n|---|---|---|---|", flush=True)
    try:
        volume = make_source(
            store.join(base, "source.zarr"), options.size, options.dtype, options.plain
        )
        for name, box in cases(options.size):
            show(crop_rows(volume, base, name, box, options.repeats))
        show(read_rows(volume, options.repeats))
    finally:
        store.delete_tree(base)


def show(rows: list[list[str]]) -> None:
    """Print rows at once: an interrupted run keeps what it measured."""
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def cases(side: int) -> list[tuple[str, Box]]:
    """Boxes in a source with chunks of 64 and shards of 256 voxels, on up to four levels."""
    near = side // 256 * 256

    def box(start: int, stop: int) -> Box:
        return Box(start=(start,) * 3, stop=(stop,) * 3)

    return [
        ("whole shards", Box(start=(256, 0, 0), stop=(near, near, near))),
        ("whole chunks", box(128, near)),
        ("chunks cut at the far faces", box(128, near - 40)),
        ("nothing aligned", box(104, near - 40)),
    ]


def make_source(url: str, side: int, dtype: str, plain: bool) -> Volume:
    """Write noise like that of a scan, whose low bits do not compress."""
    shape = (side, side, side)
    layouts = None
    if plain:
        layouts = [
            LevelLayout(grid=grid, encoding=default_encoding(grid.chunk, np.dtype(dtype), "0.4"))
            for grid in (ShardGrid.choose(plan.shape) for plan in plan_levels(shape, 4))
        ]
    writer = create_volume(
        url, shape=shape, dtype=dtype, voxel_size=None, num_levels=4, layouts=layouts
    )
    for number, shard in enumerate(writer.grid.shards()):
        rng = np.random.default_rng(number)
        smooth = gaussian_filter(rng.normal(size=(64, 64, 64)), 2).astype(np.float32) * 300
        coarse = np.kron(smooth, np.ones((4, 4, 4), np.float32))
        grey = 120 + coarse + rng.normal(0, 8, shard.shape).astype(np.float32)
        writer.write(shard, grey.clip(0, np.iinfo(dtype).max).astype(dtype))
    writer.build_pyramid()
    writer.commit({})
    return open_volume(url)


def crop_rows(volume: Volume, base: str, name: str, box: Box, repeats: int) -> list[list[str]]:
    """Crop, plain copy of the crop's objects, and reading and writing its voxels through zarr."""
    made = store.join(base, "made.zarr")
    result = write_crop(volume, box, made, provenance={}, snap_chunks=0)
    num_bytes = result.bytes_written

    def crop(url: str) -> None:
        write_crop(volume, box, url, provenance={}, snap_chunks=0)

    ways: dict[str, Callable[[str], None]] = {
        "crop": crop,
        "plain copy": lambda url: plain_copy(made, url),
        "decode and encode": lambda url: decode_and_encode(volume, made, result.box, url),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, do in ways.items():
            url = store.join(base, "out.zarr")
            began = time.perf_counter()
            do(url)
            seconds[way].append(time.perf_counter() - began)
            store.delete_tree(url)
    store.delete_tree(made)
    rows = [
        [
            f"{name}: crop, {result.copied_part:.0%} copied",
            *_figures(seconds["crop"], num_bytes),
            "",
        ]
    ]
    for way in ("plain copy", "decode and encode"):
        ratio = statistics.median(b / a for a, b in zip(seconds["crop"], seconds[way], strict=True))
        rows.append([f"{name}: {way}", *_figures(seconds[way], num_bytes), f"crop {ratio:.2f} ×"])
    return rows


def read_rows(volume: Volume, repeats: int) -> list[list[str]]:
    """`Volume.read` beside zarr-python with its defaults, shard by shard."""
    target = store.zarr_store(store.join(volume.url, "0"), read_only=True)
    array = zarr.open_array(target, mode="r")
    shards = list(ShardGrid.choose(volume.shape).shards())
    ways: dict[str, Callable[[Box], object]] = {
        "Volume.read": volume.read,
        "zarr": lambda box: array[box.slices],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, read in ways.items():
            began = time.perf_counter()
            for shard in shards:
                read(shard)
            seconds[way].append(time.perf_counter() - began)
    pairs = zip(seconds["Volume.read"], seconds["zarr"], strict=True)
    ratio = statistics.median(b / a for a, b in pairs)
    return [
        ["read shards: Volume.read", *_figures(seconds["Volume.read"], volume.num_bytes), ""],
        ["read shards: zarr", *_figures(seconds["zarr"], volume.num_bytes), f"ours {ratio:.2f} ×"],
    ]


def plain_copy(source: str, target: str) -> None:
    """Objects as they are, with as many requests at a time as a crop makes."""
    objects = dict(store.list_tree(source))
    objects.pop(MANIFEST, None)

    def one(path: str) -> None:
        data = store.read_bytes(store.join(source, path))
        store.write_bytes(store.join(target, path), data)

    largest = max(objects.values())
    for _ in bounded_map(one, objects, bytes_per_item=3 * largest, max_threads=THREADS):
        pass


def decode_and_encode(volume: Volume, made: str, box: Box, url: str) -> None:
    """The same crop through zarr alone: read voxels, write voxels."""
    like = open_volume(made)
    writer = create_volume(
        url, shape=box.shape, dtype=volume.dtype, voxel_size=None, num_levels=len(like.levels)
    )
    for n, level in enumerate(like.levels):
        region = box.to_level(n, level.factors, volume.levels[n].shape)

        def move(shard: Box, n: int = n, region: Box = region) -> None:
            wanted = shard.shift(region.start)
            voxels = volume.read(Box(start=wanted.start, stop=wanted.stop, level=n))
            writer.write_level(n, shard, voxels)

        held = 3 * math.prod(writer.grids[n].shard) * volume.dtype.itemsize
        for _ in bounded_map(move, writer.grids[n].shards(), bytes_per_item=held):
            pass
    writer.commit({})


def machine() -> str:
    """Processor and cores of this machine, as the system tells."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"


def _figures(seconds: list[float], num_bytes: int) -> tuple[str, str]:
    median = statistics.median(seconds)
    return f"{median:.2f}", f"{num_bytes / median / 1e6:.0f}"


if __name__ == "__main__":
    main()
