"""Voxels a second through `Volume`, plain zarr-python, tensorstore and zarr with the zarrs codecs.

    python -m tests.bench.reading [--store URL] [--size 512] [--repeats 7]

Writes a volume as OME-Zarr 0.5 in shards and as 0.4 without, below URL (a folder, or ``s3://``),
reads it whole, in part, and plane by plane, and removes it. Every competitor has a process of its
own with the defaults that it comes with, and opens the array once; in each round all read the same
in turn. One that is not installed is left out. Prints Markdown: seconds as medians, and the median
of the others' time by that of `Volume`: above 1 `Volume` is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import os
import statistics
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from ctray.core.geometry import Box
from ctray.storage import store
from ctray.volumes.writer import create_volume
from tests.bench.measuring import in_turn, machine, row, spread, table_head

Ranges = tuple[tuple[int, int], ...]
Read = Callable[[Ranges], Any]

NEEDS = {"Volume": "ctray", "zarr": "zarr", "zarrs": "zarrs", "tensorstore": "tensorstore"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--store", default=tempfile.gettempdir(), help="folder or s3://bucket/prefix"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, default=512, help="side of the volume, voxels")
    parser.add_argument("--only", nargs="*", choices=list(NEEDS), help="beside Volume itself")
    options = parser.parse_args()
    where = "S3" if options.store.startswith("s3://") else "local disk, in the page cache"
    print(f"{where}, {options.size}³ uint16, {machine()}\n")
    present = {way for way, package in NEEDS.items() if importlib.util.find_spec(package)}
    for way in sorted(NEEDS.keys() - present):
        print(f"{way} is not installed and left out\n")
    base = store.join(options.store, f"ctray-bench-{uuid.uuid4().hex[:8]}")
    chosen = present & set(options.only) if options.only else present
    others = [way for way in NEEDS if way in chosen and way != "Volume"]
    print(table_head("what", "Volume, MB/s", *(f"{way} / Volume" for way in others)), flush=True)
    try:
        for version, name in (("0.5", "sharded"), ("0.4", "unsharded")):
            url = store.join(base, f"{name}.zarr")
            write_source(url, options.size, version)
            measure(url, version, name, options.size, ["Volume", *others], options.repeats)
    finally:
        store.delete_tree(base)


def measure(url: str, version: str, name: str, size: int, ways: list[str], repeats: int) -> None:
    """Rows of one volume."""
    with ExitStack() as stack:
        readers = {way: stack.enter_context(Reader(way, url, version)) for way in ways}
        sound = [way for way in ways if not readers[way].failed]
        for what, boxes in cases(size).items():
            # The first round opens connections.
            seconds = in_turn(
                {way: partial(readers[way].seconds, boxes) for way in sound}, repeats + 1
            )
            kept = {way: found[1:] for way, found in seconds.items()}
            num_bytes = 2 * sum(math.prod(b - a for a, b in box) for box in boxes)
            rate = num_bytes / statistics.median(kept["Volume"]) / 1e6
            found = [
                spread(kept[way], kept["Volume"]) if way in kept else readers[way].failed
                for way in ways[1:]
            ]
            print(row(f"{name}, {what}", f"{rate:.0f}", *found), flush=True)


def cases(size: int) -> dict[str, list[Ranges]]:
    """What is read, as ranges along z, y, x."""
    near, far = size * 2 // 7, size * 2 // 3
    planes = [size * n // 9 + 5 for n in range(1, 6)]

    def plane(axis: int, at: int) -> Ranges:
        return tuple((at, at + 1) if a == axis else (0, size) for a in range(3))

    return {
        "whole": [((0, size),) * 3],
        "sub-box": [((near, far),) * 3],
        "5 planes of z": [plane(0, at) for at in planes],
        "5 planes of x": [plane(2, at) for at in planes],
    }


def write_source(url: str, side: int, version: str) -> None:
    """Write noise like that of a scan, whose low bits do not compress."""
    writer = create_volume(
        url,
        shape=(side,) * 3,
        dtype="uint16",
        voxel_size=None,
        num_levels=1,
        ome_version=version,
    )
    for number, shard in enumerate(writer.grid.shards()):
        rng = np.random.default_rng(number)
        smooth = gaussian_filter(rng.normal(size=(64, 64, 64)), 2).astype(np.float32) * 300
        coarse = smooth.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(map(slice, shard.shape))]
        grey = 1000 + coarse + rng.normal(0, 8, shard.shape).astype(np.float32)
        writer.write(shard, grey.astype(np.uint16))
    writer.commit({})


class Reader:
    """A process that reads one array in one way and tells how long it took."""

    def __init__(self, way: str, url: str, version: str) -> None:
        # Not forked: threads of zarr and obstore do not survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(way, url, version, theirs))
        self._process.start()
        theirs.close()
        self.failed: str = self._pipe.recv()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def seconds(self, boxes: list[Ranges]) -> float:
        """What it took to read `boxes` one after the other."""
        self._pipe.send(boxes)
        found = self._pipe.recv()
        if isinstance(found, str):
            raise RuntimeError(found)
        return float(found)


def _serve(way: str, url: str, version: str, pipe: Connection) -> None:
    try:
        read = OPENERS[way](url, version)
        read(((0, 1),) * 3)
        pipe.send("")
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {str(error)[:200]}")
        return
    while True:
        try:
            boxes = pipe.recv()
        except EOFError:
            return
        try:
            began = time.perf_counter()
            for box in boxes:
                read(box)
            pipe.send(time.perf_counter() - began)
        except Exception:
            pipe.send(traceback.format_exc())


def open_ours(url: str, version: str) -> Read:
    """`Volume.read`."""
    import ctray

    volume = ctray.open_volume(url)
    return lambda box: volume.read(
        Box(start=tuple(a for a, _ in box), stop=tuple(b for _, b in box))
    )


def open_zarr(url: str, version: str) -> Read:
    """zarr-python as it comes: its own stores and codecs."""
    import zarr

    options = {"endpoint_url": os.environ.get("AWS_ENDPOINT_URL")} if "://" in url else None
    array = zarr.open_array(f"{url}/0", mode="r", storage_options=options)
    return lambda box: array[tuple(slice(a, b) for a, b in box)]


def open_zarrs(url: str, version: str) -> Read:
    """zarr-python with the codecs of zarrs."""
    import zarr
    import zarrs  # noqa: F401

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    return open_zarr(url, version)


def open_tensorstore(url: str, version: str) -> Read:
    """Tensorstore as it comes."""
    import tensorstore

    if "://" in url:
        bucket, _, path = url.removeprefix("s3://").partition("/")
        kvstore: dict[str, Any] = {
            "driver": "s3",
            "bucket": bucket,
            "path": f"{path}/0/",
            "endpoint": os.environ["AWS_ENDPOINT_URL"],
            "aws_region": os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        }
    else:
        kvstore = {"driver": "file", "path": f"{url}/0/"}
    driver = "zarr3" if version == "0.5" else "zarr"
    array = tensorstore.open({"driver": driver, "kvstore": kvstore}, read=True).result()
    return lambda box: array[tuple(slice(a, b) for a, b in box)].read().result()


OPENERS: dict[str, Callable[[str, str], Read]] = {
    "Volume": open_ours,
    "zarr": open_zarr,
    "zarrs": open_zarrs,
    "tensorstore": open_tensorstore,
}


if __name__ == "__main__":
    main()
