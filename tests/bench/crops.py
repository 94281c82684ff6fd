"""How fast crops are copied and voxels are read, as ratios within one run.

    python -m tests.bench.crops [--store URL] [--size 512]

Writes a volume below URL (a folder, or ``s3://``), measures, removes it, and prints a Markdown
table. Every figure is the median of `--repeats` rounds; in each round all ways run once, in turn,
so that a ratio compares what ran side by side. "copy with SHA-256" is the plain copy and what a
crop's manifest needs of every object: no copy that can be verified later does less.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import uuid
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from ctray.core.geometry import Box
from ctray.core.grid import ShardGrid
from ctray.core.parallel import bounded_map
from ctray.crops.cutting import write_crop
from ctray.storage import store
from ctray.volumes.encoding import default_encoding
from ctray.volumes.level_layout import LevelLayout
from ctray.volumes.manifest import MANIFEST, digest
from ctray.volumes.multiscale import plan_levels
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.writer import create_volume
from tests.bench.measuring import in_turn, machine, ratio, row, table_head

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
    print(f"{what}, {machine()}\n")
    print(table_head("what", "seconds", "MB voxels/s", "ratio"), flush=True)
    try:
        volume = make_source(
            store.join(base, "source.zarr"), options.size, options.dtype, options.plain
        )
        for name, box in cases(options.size):
            # At once: an interrupted run keeps what it measured.
            for found in crop_rows(volume, base, name, box, options.repeats):
                print(row(*found), flush=True)
    finally:
        store.delete_tree(base)


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
    """Crop, plain copies of the crop's objects, and reading and writing its voxels through zarr."""
    made, out = store.join(base, "made.zarr"), store.join(base, "out.zarr")
    result = write_crop(volume, box, made, provenance={}, snap_chunks=0)
    ways = {
        "crop": partial(write_crop, volume, box, out, provenance={}, snap_chunks=0),
        "plain copy": partial(plain_copy, made, out),
        "copy with SHA-256": partial(plain_copy, made, out, verified=True),
        "decode and encode": partial(decode_and_encode, volume, made, result.box, out),
    }
    seconds = in_turn(ways, repeats, after=lambda: store.delete_tree(out))
    store.delete_tree(made)
    rows = []
    for way, found in seconds.items():
        crop = way == "crop"
        what = f"crop, {result.copied_part:.0%} copied" if crop else way
        than = "" if crop else f"crop {ratio(found, seconds['crop']):.2f} ×"
        rows.append([f"{name}: {what}", *_figures(found, result.bytes_written), than])
    return rows


def plain_copy(source: str, target: str, *, verified: bool = False) -> None:
    """Objects as they are, with as many requests at a time as a crop makes."""
    objects = dict(store.list_tree(source))
    objects.pop(MANIFEST, None)

    def one(path: str) -> None:
        data = store.read_bytes(store.join(source, path))
        store.write_bytes(store.join(target, path), data)
        if verified:
            digest(data)

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


def _figures(seconds: list[float], num_bytes: int) -> tuple[str, str]:
    median = statistics.median(seconds)
    return f"{median:.2f}", f"{num_bytes / median / 1e6:.0f}"


if __name__ == "__main__":
    main()
