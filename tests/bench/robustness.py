"""How far a box can be trusted on scans that the method was not made with.

    python -m tests.bench.robustness --data SCANS --out FOLDER

Networks are trained on archives of real scans (several seeds, sizes of archive and working sizes),
then localize many variants of all scans. The table counts what a crop lost, how often a container
was found where it hides sample, and how often a volume was left for review. A second call goes on
where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctray.config import RunConfig, parse_config
from ctray.learn.pretext.checkpoint import checkpoint_step, load_model, restore, save_checkpoint
from ctray.learn.pretext.rows import canvas_side
from ctray.learn.pretext.training import Trainer, first_round, local_rounds, train
from ctray.learn.self_training.checkpoint import (
    has_self_trained,
    load_self_trained,
    save_self_trained,
)
from ctray.learn.self_training.training import SelfTrainer
from ctray.localization.localizer import Localizer
from ctray.localization.margins import margins_of, shipped_calibration
from ctray.localization.promise import with_promise
from ctray.localization.python_localize import record_of
from ctray.preprocess.field_of_view import find_field_of_view
from ctray.preprocess.prepare import Prepared, prepare
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import read_working
from ctray.volumes.writer import create_volume
from tests.bench.head_variants import CHANGES, Scan, read_scans, variant
from tests.bench.measuring import machine, row, table_head

# Losses of a crop that are counted, as fractions of the sample's voxels.
LOSSES = (0.001, 0.01, 0.05)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One archive that is learned from: the first `count` scans in an order drawn by `seed`."""

    seed: int
    count: int
    working_size: int
    steps: tuple[int, int]

    @property
    def name(self) -> str:
        """Name of its folder."""
        steps = f"{self.steps[0]}+{self.steps[1]}"
        return f"size{self.working_size}-seed{self.seed}-of{self.count}-steps{steps}"

    @property
    def config(self) -> RunConfig:
        """Defaults but for seed, working size and steps."""
        return parse_config(
            {
                "preprocess": {"working_size": self.working_size},
                "train": {"steps": self.steps[0], "seed": self.seed},
                "self_train": {"steps": self.steps[1]},
            }
        )


def trained(training: Training, scans: Sequence[Scan], folder: Path) -> Localizer:
    """Localizer of a training, from its checkpoint where there is one."""
    config, url = training.config, str(folder / training.name)
    order = np.random.default_rng(training.seed).permutation(len(scans))[: training.count]
    prepared = [_prepared(scans[i], config) for i in sorted(order)]
    side = max(canvas_side(p.shape, config) for p in prepared)
    if checkpoint_step(url) != config.train.steps:
        trainer = Trainer(config, side)
        restore(trainer, url)
        load = local_rounds(prepared, config, side)
        rounds = (load(i) for i in range(first_round(trainer), 1 << 30))
        train(
            trainer,
            rounds,
            on_checkpoint=lambda trainer: _saved(url, trainer),
        )
    model = load_model(url)
    if not has_self_trained(url):
        localizer = Localizer(model, config)
        teacher = SelfTrainer(
            model.model.encoder,
            lambda index: prepared[index],
            [localizer.ranges(p) for p in prepared],
            [p.shape for p in prepared],
            config,
            max(max(p.shape) for p in prepared),
            torch.device("cpu"),
        )
        while not teacher.finished:
            teacher.advance(50)
        save_self_trained(url, teacher.network, config, model.digest)
    return Localizer(model, config, load_self_trained(url, model))


def _saved(url: str, trainer: Trainer) -> None:
    save_checkpoint(url, trainer)
    print(f"{url}: step {trainer.step}", flush=True)


def _prepared(scan: Scan, config: RunConfig) -> Prepared:
    with _on_disk(scan) as volume:
        working, factors = read_working(volume, config.preprocess.working_size)
    return prepare(working, factors, config.preprocess)


@contextmanager
def _on_disk(scan: Scan) -> Iterator[Volume]:
    """The scan as a volume in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ctray-robustness-") as folder:
        url = f"{folder}/scan.zarr"
        writer = create_volume(
            url, shape=scan.voxels.shape, dtype=scan.voxels.dtype, voxel_size=None
        )
        for box in writer.grid.shards():
            writer.write(box, scan.voxels[box.slices])
        writer.build_pyramid()
        writer.commit({})
        yield open_volume(url)


def outcome(scan: Scan, localizer: Localizer) -> dict[str, Any]:
    """What became of a variant.

    Returns
    -------
    `status` and `reason`; `lost` and `lost_box`: fractions of the sample's voxels outside of the
    box with margins of one scale, the least that a calibration gives, and outside of the box;
    `hidden`: fraction outside of the field of view; `saved`: fraction of the volume's voxels that
    the box with those margins leaves out; `container`: whether one was found.
    """
    config = localizer.config
    with _on_disk(scan) as volume:
        found = localizer.localize(volume)
        record = record_of(volume, found, localizer)
        record = with_promise(record, config.crop, shipped_calibration())
        shape, hidden = volume.shape, _hidden(scan, volume, config)
    total = int(np.count_nonzero(scan.sample))
    told: dict[str, Any] = {
        "status": record.status,
        "reason": record.reason,
        "container": found.working["field_of_view"]["container"] is not None,
        "kept": found.working["field_of_view"]["kept_fraction"],
        "hidden": hidden,
        "cut_pieces": found.working.get("last_look"),
    }
    if found.box is not None and found.scales is not None:
        crop = found.box.expand(margins_of(found.scales, 1.0), shape)
        told |= {
            "box": found.box.ranges,
            "crop": crop.ranges,
            "lost_box": 1 - np.count_nonzero(scan.sample[found.box.slices]) / total,
            "lost": 1 - np.count_nonzero(scan.sample[crop.slices]) / total,
            "saved": 1 - crop.num_voxels / scan.sample.size,
        }
    return told


def _hidden(scan: Scan, volume: Volume, config: RunConfig) -> float:
    """Fraction of the sample that lies outside of the field of view."""
    working, factors = read_working(volume, config.preprocess.working_size)
    inside = find_field_of_view(working.astype(np.float32), config.preprocess).mask(working.shape)
    for axis, factor in enumerate(factors):
        inside = inside.repeat(factor, axis=axis)
    z, y, x = (min(a, b) for a, b in zip(inside.shape, scan.sample.shape, strict=True))
    sample = scan.sample[:z, :y, :x]
    hidden = np.count_nonzero(sample & ~inside[:z, :y, :x])
    return float(hidden / np.count_nonzero(scan.sample))


def variants(scans: Sequence[Scan], training: Training, per_change: int) -> Iterator[Scan]:
    """`per_change` variants of each change, of scans in turn, and all scans as they are."""
    yield from scans
    for change in CHANGES:
        for index in range(per_change):
            scan = scans[(index * 5 + training.seed) % len(scans)]
            yield variant(
                scan, change, seed=training.seed + 1000 * training.working_size, index=index
            )


def measure(
    trainings: Sequence[Training], scans: Sequence[Scan], folder: Path, per_change: int
) -> list[dict[str, Any]]:
    """Outcomes of all trainings and variants, taken from FOLDER where they are known."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "outcomes.jsonl"
    lines = kept.read_text("utf-8").splitlines() if kept.exists() else []
    rows = [json.loads(line) for line in lines]
    known = {(r["training"], r["variant"]) for r in rows}
    for training in trainings:
        localizer = trained(training, scans, folder)
        for scan in variants(scans, training, per_change):
            if (training.name, scan.name) in known:
                continue
            began = time.monotonic()
            told = outcome(scan, localizer)
            told |= {"training": training.name, "variant": scan.name}
            told["seconds"] = round(time.monotonic() - began, 2)
            rows.append(told)
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
    return rows


def summary(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """One row of the table."""
    cut = [r["lost"] for r in rows if r["status"] == "located"]
    over = [sum(lost > limit for lost in cut) for limit in LOSSES]
    left = sum(r["status"] == "uncertain" for r in rows)
    other = len(rows) - len(cut) - left
    hidden = sum(r["container"] and r["hidden"] > LOSSES[1] for r in rows)
    saved = np.mean([r["saved"] for r in rows if r["status"] == "located"] or [0.0])
    within = 1 - over[0] / max(1, len(cut))
    worst = max(cut, default=0.0)
    return row(
        name, len(rows), hidden, *over, f"{within:.1%}", f"{worst:.2%}", left, other, f"{saved:.0%}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mouse_heads_tube"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-change", type=int, default=8, help="variants of a change, each")
    parser.add_argument("--size", type=int, action="append", help="working size [64 and 128]")
    parser.add_argument("--seed", type=int, action="append", choices=(0, 1, 2), help="[all]")
    parser.add_argument("--steps", type=int, nargs=2, default=(1500, 800))
    given = parser.parse_args(arguments)
    scans = read_scans(given.data)
    counts = (len(scans), 9, 5)
    trainings = [
        Training(seed=seed, count=count, working_size=size, steps=tuple(given.steps))
        for size in given.size or (64, 128)
        for seed, count in enumerate(counts)
        if given.seed is None or seed in given.seed
    ]
    rows = measure(trainings, scans, given.out, given.per_change)
    print(f"{machine()}\n")
    print(
        table_head(
            "variants",
            "n",
            "container hides over 1%",
            *(f"over {loss:.1%}" for loss in LOSSES),
            "within 0.1%",
            "worst",
            "uncertain",
            "empty",
            "saved",
        )
    )
    for change in ("as they are", *CHANGES):
        own = [r for r in rows if _change(r["variant"]) == change]
        print(summary(change, own))
    for training in trainings:
        print(summary(training.name, [r for r in rows if r["training"] == training.name]))
    print(summary("**all**", rows))


def _change(name: str) -> str:
    return next((change for change in CHANGES if f"-{change}-" in name), "as they are")


if __name__ == "__main__":
    main()
