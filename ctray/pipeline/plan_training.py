"""The time that training takes: from a run's metrics, or from a few steps on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from ctray.archive.catalog import CatalogEntry
from ctray.config import RunConfig
from ctray.core.geometry import Triple
from ctray.learn.pretext.checkpoint import checkpoint_step, read_metrics
from ctray.learn.pretext.rows import canvas_side, example_rows
from ctray.learn.pretext.tasks import make_task
from ctray.learn.pretext.training import Trainer, best_device
from ctray.learn.self_training.checkpoint import has_self_trained
from ctray.learn.self_training.training import SelfTrainer
from ctray.phantom import make_phantom, preset
from ctray.phantom.spec import MIN_SIDE
from ctray.preprocess.prepare import Prepared, prepare
from ctray.records.run_folder import RunFolder
from ctray.volumes.multiscale import level_shapes, longest_side

# Larger slices are timed at this side and scaled by area, so that planning is fast.
_MEASURED_SIDE = 128
_STEPS = 3
_MOST_HALVINGS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """Seconds of one process on this machine at the working size of an archive.

    Parameters
    ----------
    prepare
        Preparation of one volume.
    step, slab_step
        One step of the encoder's training, and one of self-training.
    find, self_train
        Finding the box of one volume with the pretext task, and then with the self-trained network.
    """

    prepare: float
    step: float
    slab_step: float
    find: float
    self_train: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCost:
    """Time of training, and time to compute the box of a volume afterwards.

    Parameters
    ----------
    seconds
        Time of preparing the training volumes, of both trainings, and of the boxes between them;
        0 if all is finished.
    volume_s
        Time of one process to compute one box, without reading the volume.
    how
        Line that explains the estimate; empty if training is finished.
    """

    seconds: float
    volume_s: float
    how: str


def training_cost(
    entries: Sequence[CatalogEntry], config: RunConfig, run: RunFolder | None, num_actors: int
) -> TrainingCost:
    """Estimate the time of training from a few steps on a phantom.

    Parameters
    ----------
    entries
        Readable volumes of the archive.
    config
        Settings of the run.
    run
        Existing run, whose finished steps do not count and whose own speed is used.
    num_actors
        Processes that prepare volumes and find boxes at the same time.
    """
    begun = 0 if run is None else checkpoint_step(run.checkpoint) or 0
    steps = max(0, config.train.steps - begun)
    trained = run is not None and has_self_trained(run.checkpoint)
    slab_steps = 0 if trained or not config.self_train.enabled else config.self_train.steps
    shapes = [working_shape(e.shape, config.preprocess.working_size) for e in entries if e.shape]
    if not shapes:
        return TrainingCost(seconds=0.0, volume_s=0.0, how="")
    speeds = measure_speeds(config, max(canvas_side(shape, config) for shape in shapes))
    own = None if run is None else _own_step(run, config)
    step = speeds.step if own is None else own
    num_volumes = min(len(entries), config.train.max_volumes)
    # If the run has a checkpoint, its volumes are already prepared.
    each = (speeds.prepare if begun == 0 else 0.0) + (speeds.find if slab_steps else 0.0)
    together = min(num_actors, num_volumes)
    seconds = steps * step + slab_steps * speeds.slab_step
    seconds += num_volumes * each / together if steps or slab_steps else 0.0
    return TrainingCost(
        seconds=seconds,
        volume_s=speeds.prepare + speeds.find + speeds.self_train,
        how=_how(steps, step, slab_steps, speeds, own is not None, num_volumes),
    )


def working_shape(shape: Sequence[int], working_size: int) -> Triple:
    """Return the shape of the level whose longest side is nearest to `working_size`."""
    levels = level_shapes(shape, _MOST_HALVINGS)
    wanted = longest_side(shape, working_size)
    return min(levels, key=lambda level: abs(max(level) - wanted))


def _own_step(run: RunFolder, config: RunConfig) -> float | None:
    """Return the seconds per step of the run's own training; None before its first metrics."""
    slices = make_task(config, 1, torch.device("cpu")).slices_per_example * config.train.batch_size
    rates = [row["slices_per_second"] for row in read_metrics(run.checkpoint) if _has_rate(row)]
    return slices / median(rates) if rates else None


def _has_rate(row: dict[str, float]) -> bool:
    return row.get("slices_per_second", 0.0) > 0


def measure_speeds(config: RunConfig, side: int) -> Speeds:
    """Time the computations of a run for slices of `side` pixels."""
    measured = max(MIN_SIDE, min(side, _MEASURED_SIDE))
    area, volume = (side / measured) ** 2, (side / measured) ** 3
    phantom = make_phantom(preset("paper", seed=config.train.seed, index=0, size=measured))
    began = time.monotonic()
    prepared = prepare(phantom.volume, (1, 1, 1), config.preprocess)
    preparing = time.monotonic() - began
    device = torch.device("cpu") if config.train.num_gpus_per_worker == 0 else best_device()
    trainer = Trainer(config, measured, device=device)
    rows = example_rows(prepared, config, range(config.train.batch_size), measured)
    step = _seconds(lambda: trainer.train_step(rows))
    forward = _seconds(lambda: trainer.validate(rows))
    image = forward / (trainer.slices_per_example * config.train.batch_size)
    slab_step = _slab_step(trainer, prepared, config) if config.self_train.enabled else 0.0
    # A forward pass is about a third of a step.
    slab = slab_step / 3 / config.self_train.slabs
    return Speeds(
        prepare=preparing * volume,
        step=step * area,
        slab_step=slab_step * area,
        find=_images_a_volume(config, side) * image * area,
        self_train=3 * side * slab * area,
    )


def _slab_step(trainer: Trainer, prepared: Prepared, config: RunConfig) -> float:
    shape = prepared.shape
    boxes = [tuple((extent / 4, 3 * extent / 4) for extent in shape)]
    slabs = SelfTrainer(
        trainer.model.encoder,
        lambda index: prepared,
        boxes,  # type: ignore[arg-type]
        [shape],
        config,
        max(shape),
        trainer.device,
    )
    return _seconds(lambda: slabs.advance(1))


def _images_a_volume(config: RunConfig, side: int) -> int:
    """Return the number of slices that the network computes to find one box."""
    match config.task:
        case "rotation":
            return len(config.rotation.axes) * side * config.localize.orientations
        case "sorting":
            return side * config.uncertainty.samples * config.uncertainty.shifts**2


def _seconds(work: Callable[[], object]) -> float:
    """Return the median seconds of `work`; the first, slower call does not count."""
    work()
    seconds = []
    for _ in range(_STEPS):
        began = time.monotonic()
        work()
        seconds.append(time.monotonic() - began)
    return median(seconds)


def _how(
    steps: int, step: float, slab_steps: int, speeds: Speeds, own: bool, num_volumes: int
) -> str:
    """Return a line that explains the estimated hours of training."""
    parts = []
    if steps:
        where = "as in the run so far" if own else "timed on this machine"
        parts.append(f"{steps:,} steps of {_short(step)} ({where})")
    if slab_steps:
        parts.append(f"{slab_steps:,} steps of self-training of {_short(speeds.slab_step)}")
    if not parts:
        return ""
    return f"training: {' and '.join(parts)}, on {num_volumes} volumes"


def _short(seconds: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(seconds))) if seconds > 0 else 0
    return f"{seconds:.{min(digits, 3)}f} s"
