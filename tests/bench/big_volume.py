"""One volume of 6100 x 2000 x 2000 voxels through a whole run: peak memory, time, bytes.

    nice python -m tests.bench.big_volume FOLDER [--scale 0.5] [--pyramid]

FOLDER is a path or an s3:// URL, with keys and endpoint from the usual ``AWS_*`` variables. Writes
the volume and a dozen small phantoms to FOLDER/archive (about 6 GB), runs `run_archive` on
them, which trains, localizes and crops through the actor pool, and prints a Markdown table. The
volume is a bright textured body in noise whose lowest bits do not compress. FOLDER is yours to
delete.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctray.benchmark.machine import describe_machine
from ctray.config import RunConfig, parse_config
from ctray.core.geometry import Box, VoxelSize, as_triple
from ctray.core.parallel import bounded_map
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.pipeline.run import run_archive
from ctray.records.events import Event
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.writer import create_volume

SHAPE = (6100, 2000, 2000)
TILE = 256
BIG = "big"


def config() -> RunConfig:
    """Settings with which training takes a minute and finds bright bodies."""
    return parse_config(
        {
            "preprocess": {"working_size": 48, "container": "off", "circle": "off"},
            "encoder": {"widths": [12, 24, 32], "embedding_dim": 32, "dropout": 0.0},
            "rotation": {"angle_step": 90},
            "train": {"steps": 240, "batch_size": 32, "interleave": 8, "log_every": 60},
            "localize": {"threshold": "otsu", "min_peak": 0.0},
            "self_train": {"enabled": False},
            "pool": {"max_size": 2, "write_pyramid": True},
            "ray": {"object_store_mb": 200},
        }
    )


def write_big(url: str, shape: tuple[int, int, int], *, pyramid: bool) -> int:
    """Write the volume, shard by shard in two threads, unless it is there; bytes stored."""
    if is_committed(url):
        return store.tree_bytes(url)
    writer = create_volume(
        url,
        shape=shape,
        dtype="uint8",
        voxel_size=VoxelSize.of((3.5, 3.5, 3.5)),
        num_levels=None if pyramid else 1,
    )
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 3, (TILE, TILE, TILE), dtype=np.uint8)
    texture = _texture(rng)

    def write(shard: Box) -> None:
        # Turned about, so that no two shards are alike; chunks are compressed one by one.
        shifts = [(start * 7) // TILE + 13 * axis for axis, start in enumerate(shard.start)]
        fine = np.roll(noise, shifts, (0, 1, 2))[tuple(slice(0, n) for n in shard.shape)]
        voxels = fine + np.uint8(80)
        inside = _body(shard, shape)
        if inside.any():
            rough = texture[tuple(slice(0, n) for n in shard.shape)]
            voxels += rough * inside
        writer.write(shard, voxels)

    size = 4 * TILE**3
    for _ in bounded_map(
        write, writer.grid.shards(), bytes_per_item=size, bytes_in_flight=2 * size
    ):
        pass
    writer.build_pyramid()
    writer.commit({})
    return store.tree_bytes(url)


def _texture(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Grey values of the body above the medium: coarse lumps."""
    coarse = rng.integers(30, 110, (TILE // 32,) * 3, dtype=np.uint8)
    return coarse.repeat(32, 0).repeat(32, 1).repeat(32, 2)


def _body(shard: Box, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Ellipsoid whose box takes a quarter of the volume, a little off its centre."""
    total: npt.NDArray[np.float32] = np.zeros((1, 1, 1), np.float32)
    for axis, (low, high) in enumerate(((0.1, 0.8), (0.2, 0.8), (0.25, 0.85))):
        middle, half = (low + high) / 2 * shape[axis], (high - low) / 2 * shape[axis]
        places = (np.arange(shard.start[axis], shard.stop[axis]) + 0.5 - middle) / half
        total = total + np.expand_dims(np.float32(places**2), [a for a in range(3) if a != axis])
    return total < 1


class PeakMemory:
    """Largest resident memory of every process below this one, from /proc."""

    def __init__(self) -> None:
        self.peak_kib: dict[str, int] = {}
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample while the block runs; VmHWM is a peak itself, so that no short one is missed."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.3):
            parents, names, peaks = {}, {}, {}
            for folder in Path("/proc").iterdir():
                if not folder.name.isdigit():
                    continue
                try:
                    lines = (folder / "status").read_text().splitlines()
                    name = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
                except OSError:
                    continue
                told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                pid = int(folder.name)
                parents[pid], names[pid] = int(told["PPid"]), name
                peaks[pid] = int(told.get("VmHWM", "0 kB").split()[0])
            for pid, peak in peaks.items():
                if names[pid].startswith("ray::") and _is_below(pid, os.getpid(), parents):
                    key = names[pid].removeprefix("ray::").partition(".")[0]
                    self.peak_kib[key] = max(peak, self.peak_kib.get(key, 0))


def _is_below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--scale", type=float, default=1.0, help="of every axis")
    parser.add_argument("--pyramid", action="store_true", help="store the volume's pyramid")
    parser.add_argument("--generate-only", action="store_true", help="do not run on it yet")
    options = parser.parse_args()
    archive, out = (store.join(options.folder, name) for name in ("archive", "run"))
    shape = as_triple([round(n * options.scale) for n in SHAPE], "shape")
    began = time.monotonic()
    write_phantoms(archive, count=12, size=48, reconstruction_circle=False)
    stored = write_big(store.join(archive, f"{BIG}.zarr"), shape, pyramid=options.pyramid)
    print(
        f"generated: {stored / 1e9:.2f} GB stored in {time.monotonic() - began:.0f} s", flush=True
    )

    if options.generate_only:
        return
    began = time.monotonic()

    def note(event: Event) -> None:
        if event.stage == "pretrain" or event.done == event.total or event.text.startswith(BIG):
            print(f"{time.monotonic() - began:6.0f} s {event.stage} {event.text}", flush=True)

    memory = PeakMemory()
    with memory.watched():
        run, _ = run_archive(archive, out, config(), note)
    receipt = run.read_receipt(BIG)
    assert receipt is not None
    _print(receipt, stored, memory.peak_kib)


def _print(receipt: VolumeRecord, stored: int, peak_kib: dict[str, int]) -> None:
    assert receipt.bytes_total is not None
    about = describe_machine()
    shape = " x ".join(str(n) for n in receipt.shape or [])
    print(
        f"\n{shape} {receipt.dtype}, {about['date']}, {about['machine']['cpu']}, "
        f"{about['machine']['cores']} cores: {receipt.status} {receipt.reason or ''}\n"
    )
    # Ray's own are many, and small.
    largest = sorted(peak_kib.items(), key=lambda item: -item[1])[:6]
    rows = {
        "stored": f"{stored / 1e9:.2f} GB",
        "read": f"{receipt.bytes_read / 1e9:.2f} GB",
        "written": f"{receipt.bytes_written / 1e9:.2f} GB",
        "seconds": f"{receipt.seconds:.0f}",
        "voxel bytes a second": f"{receipt.bytes_total / receipt.seconds / 1e6:.0f} MB/s",
        **{f"peak of {name}": f"{kib / 2**20:.2f} GiB" for name, kib in largest},
    }
    print("| what | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    print(json.dumps({name: receipt.to_json()[name] for name in ("crop_box", "sample_box")}))


if __name__ == "__main__":
    main()
