"""What the pool costs: the driver's time and memory a tiny volume, and 100 volumes against a loop.

    python -m tests.bench.driver [--volumes 10000] [--localize 100]

The first table sends catalog entries through the loop of `localize_stage`, with a worker that
writes a receipt and does nothing else. The second localizes and crops phantoms with a small
network, through a pool of one actor and in one plain process by turns. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from ctray.archive.catalog import CatalogEntry
from ctray.benchmark.machine import describe_machine
from ctray.config import RayConfig, RunConfig, parse_config
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.executors.ray.session import ray_session
from ctray.learn.pretext.checkpoint import save_checkpoint
from ctray.learn.pretext.training import Trainer
from ctray.pipeline import run as archive
from ctray.pipeline.run import catalog_stage, localize_stage, open_run
from ctray.pipeline.volume_work import LocalizeVolume
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord

# As large as those of real volumes: three profiles and what the networks said.
PROFILES = {axis: [round(0.1 + i / 1000, 4) for i in range(128)] for axis in "zyx"}


class TinyWork(LocalizeVolume):
    """Writes a receipt and does nothing else."""

    def __init__(self, run: RunFolder, config: RunConfig, crop: bool, threads: int) -> None:
        self._run = run

    def __call__(self, entry: CatalogEntry) -> VolumeRecord:
        receipt = VolumeRecord(
            volume_id=entry.volume_id,
            source_url=entry.url,
            status="empty",
            reason="nothing to do",
            shape=list(entry.shape or ()),
            bytes_total=entry.num_bytes,
            profiles=PROFILES,
            refined={"profiles": PROFILES},
        )
        self._run.write_receipt(receipt)
        return receipt


def settings() -> RunConfig:
    """A narrow network; nothing is trained."""
    return parse_config(
        {
            "preprocess": {"working_size": 64, "container": "off", "circle": "off"},
            "localize": {"threshold": "otsu", "min_peak": 0.0},
            "self_train": {"enabled": False},
            "train": {"steps": 1},
            "pool": {"max_size": 1},
        }
    )


def begin(folder: Path) -> RunFolder:
    """A run with an untrained checkpoint, over `folder`/archive."""
    run = open_run(str(folder / "archive"), str(folder / "run"), settings())
    trainer = Trainer(settings(), 64)
    trainer.step = 1
    save_checkpoint(run.checkpoint, trainer)
    return run


def measure_driver(folder: Path, num_volumes: int) -> None:
    """Driver's time and memory over `num_volumes` tiny volumes."""
    (folder / "archive").mkdir(parents=True)
    run, config = begin(folder), settings()
    entries = [
        CatalogEntry(
            volume_id=f"volume-{i:05d}",
            url=f"s3://a-facility-archive/beamtime-{i // 100:03d}/volume-{i:05d}.zarr",
            kind="ome-zarr",
            shape=(6100, 2000, 2000),
            dtype="uint8",
            num_bytes=24_400_000_000,
        )
        for i in range(num_volumes)
    ]
    rows = []
    began = [time.monotonic(), time.process_time()]

    def note(event: Event) -> None:
        if event.done == 1:
            began[:] = time.monotonic(), time.process_time()
        if event.done in (1, 100) or event.done % max(1, num_volumes // 10) == 0:
            wall, cpu = time.monotonic() - began[0], time.process_time() - began[1]
            rows.append((event.done, 1000 * wall / event.done, 1000 * cpu / event.done, _rss()))

    archive.LocalizeVolume = TinyWork
    try:
        localize_stage(run, config, entries, on_event=note)
    finally:
        archive.LocalizeVolume = LocalizeVolume
    print("| volumes | wall, ms a volume | driver CPU, ms a volume | driver RSS, MiB |")
    print("|---|---|---|---|")
    for done, wall, cpu, rss in rows:
        print(f"| {done:,} | {wall:.2f} | {cpu:.2f} | {rss:.0f} |")
    print(f"| with the table of boxes | | | {_rss():.0f} |\n")


def measure_localizing(folder: Path, num_volumes: int, repeats: int) -> None:
    """`num_volumes` phantoms through one actor, and in one process; ratio of the two."""
    write_phantoms(str(folder / "archive"), count=num_volumes, size=64)
    config = settings()
    ratios = []
    for turn in range(repeats):
        seconds = {}
        for way in ("loop", "pool") if turn % 2 else ("pool", "loop"):
            place = folder / f"{way}-{turn}"
            place.mkdir()
            (place / "archive").symlink_to(folder / "archive")
            run = begin(place)
            catalog = catalog_stage(run, str(place / "archive"), config)
            seconds[way] = _pool(run, catalog.ok) if way == "pool" else _loop(run, catalog.ok)
        ratios.append(seconds["pool"] / seconds["loop"])
        print(
            f"turn {turn}: pool {seconds['pool']:.1f} s, loop {seconds['loop']:.1f} s", flush=True
        )
    print(
        f"\n{num_volumes} volumes through one actor take {statistics.median(ratios):.3f} of the "
        f"bare loop's time ({min(ratios):.3f} to {max(ratios):.3f}, {repeats} turns), from the "
        "first volume's end to the last one's\n"
    )


def _pool(run: RunFolder, entries: tuple[CatalogEntry, ...]) -> float:
    """Seconds from the first result to the last: starting an actor costs the same once."""
    ends: list[float] = []
    localize_stage(run, settings(), entries, on_event=lambda _: ends.append(time.monotonic()))
    return ends[-1] - ends[0]


def _loop(run: RunFolder, entries: tuple[CatalogEntry, ...]) -> float:
    worker = LocalizeVolume(run, settings(), True, os.cpu_count() or 1)
    ends = []
    for entry in entries:
        worker(entry)
        ends.append(time.monotonic())
    return ends[-1] - ends[0]


def _rss() -> float:
    """Resident memory of this process, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmRSS")) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=10_000)
    parser.add_argument("--localize", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    about = describe_machine()
    print(f"{about['date']}, {about['machine']['cpu']}, {about['machine']['cores']} cores\n")
    with (
        tempfile.TemporaryDirectory(prefix="ctray-driver-") as folder,
        ray_session(RayConfig(num_cpus=2, object_store_mb=100)),
    ):
        if options.volumes:
            measure_driver(Path(folder) / "driver", options.volumes)
        if options.localize:
            measure_localizing(Path(folder) / "localize", options.localize, options.repeats)


if __name__ == "__main__":
    main()
