"""The plan of a run over an archive: its savings and its duration, estimated from a sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from ctray.archive.catalog import Catalog, CatalogEntry
from ctray.config import RunConfig
from ctray.executors.session import executor_session
from ctray.pipeline.choosing import with_known_ids
from ctray.pipeline.plan_looks import Look, look_at, looks_of_receipts, open_model
from ctray.pipeline.plan_training import TrainingCost, training_cost
from ctray.records.events import nobody
from ctray.records.run_folder import RunFolder

Basis = Literal["receipts", "model", "threshold"]
OnLook = Callable[[int, int, str], None]
_LEVEL = 0.95
# With fewer receipts, a sample of volumes gives a better estimate.
_ENOUGH = 5
_FEW_NOTES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A value with its 95% interval; `low` and `high` are None for a sample of one volume."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivePlan:
    """The result of `plan_archive`.

    Parameters
    ----------
    num_volumes, num_unreadable
        Number of readable and of unreadable volumes.
    kinds
        Number of volumes by format and type of voxels, such as `ome-zarr uint8`.
    unreadable
        URL and reason of each unreadable volume.
    bytes_total
        Bytes of all voxels, uncompressed.
    bytes_stored
        Bytes of the files, estimated from the sample; None if the stores do not report them.
    saved
        Fraction of the voxel bytes that the crops leave out.
    basis
        Source of `saved`: the `receipts` of a run, its trained `model` on a sample, or a
        `threshold` on the grey values of a sample.
    num_done
        Number of finished volumes of the run.
    num_looked_at
        Number of volumes in the sample.
    num_actors, could_hold
        Processes of the pool, and the number that fits on the machine or cluster. If an
        autoscaler adds nodes, `could_hold` is `pool.max_size`.
    training_hours
        Hours to prepare the training volumes and to finish both trainings.
    hours
        Hours to read, localize and crop the unfinished volumes, without training.
    assumptions
        Lines that explain the estimates.
    coverage
        Lines that list the archive's other contents besides volumes.
    """

    num_volumes: int
    num_unreadable: int
    kinds: dict[str, int]
    unreadable: list[tuple[str, str]]
    bytes_total: int
    bytes_stored: Estimate | None
    saved: Estimate | None
    basis: Basis | None
    num_done: int
    num_looked_at: int
    num_actors: int
    could_hold: int
    training_hours: float
    hours: Estimate | None
    assumptions: tuple[str, ...]
    coverage: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def plan_archive(
    catalog: Catalog,
    config: RunConfig,
    run: RunFolder | None = None,
    *,
    num_sample: int = 8,
    on_look: OnLook = lambda done, total, volume_id: None,
    on_note: Callable[[str], None] = nobody,
) -> ArchivePlan:
    """Estimate the savings and the duration of a run over the volumes of `catalog`.

    Parameters
    ----------
    catalog
        Result of `ctray.archive.catalog.build_catalog`.
    config
        Settings of the run.
    run
        Existing run. The estimates use its receipts, or its trained model if there are too few.
    num_sample
        Size of the sample if there are not enough receipts.
    on_look
        Called after each volume of the sample with (done, total, volume id).
    on_note
        Called with a line before a longer step.
    """
    done = {}
    if run is not None:
        catalog = with_known_ids(catalog, run)
        done = looks_of_receipts(run, config, catalog.ok)
    enough = len([look for look in done.values() if look.saved is not None]) >= _ENOUGH
    basis: Basis
    looks: list[Look]
    if enough or not catalog.ok:
        looks, basis = list(done.values()), "receipts"
    else:
        looks, basis = _sample(catalog.ok, config, run, num_sample, on_look)
    left = sum(e.num_bytes or 0 for e in catalog.ok if e.volume_id not in done)
    actors, could_hold = _actors(config)
    on_note("timing a few training steps")
    training = training_cost(catalog.ok, config, run, actors)
    # The seconds of receipts and of the model already include this time.
    volume_s = training.volume_s if basis == "threshold" else 0.0
    usable = [look for look in looks if look.saved is not None]
    sizes = [e.num_bytes or 0 for e in catalog.ok]
    return ArchivePlan(
        num_volumes=len(catalog.ok),
        num_unreadable=len(catalog.failed),
        kinds=dict(Counter(f"{e.kind} {e.dtype}" for e in catalog.ok).most_common()),
        unreadable=[(e.url, e.reason or "") for e in catalog.failed],
        bytes_total=sum(sizes),
        bytes_stored=_total(looks, sizes, lambda look: look.bytes_stored, sum(sizes)),
        saved=_part(usable, sizes, lambda look: (look.saved or 0.0) * look.num_bytes),
        basis=basis if usable else None,
        num_done=len(done),
        num_looked_at=len(usable),
        num_actors=actors,
        could_hold=could_hold,
        training_hours=training.seconds / 3600,
        hours=_total(
            [look for look in usable if look.seconds],
            sizes,
            lambda look: ((look.seconds or 0.0) + volume_s) / 3600 / actors,
            left,
        ),
        assumptions=_assumptions(basis, usable, looks, config, training, actors),
        coverage=(*catalog.notes(_FEW_NOTES), *catalog.coverage.lines()),
    )


def ratio_interval(
    values: Sequence[float], sizes: Sequence[float], num_all: int, level: float = _LEVEL
) -> Estimate | None:
    """Estimate (sum of `values`) / (sum of `sizes`) of an archive from a sample, with its interval.

    This is the ratio estimator with Student's t and the correction for a finite population
    (Cochran, Sampling Techniques, chapter 6). With all volumes in the sample, the interval is a
    point.
    """
    if not values or sum(sizes) <= 0:
        return None
    y, x = np.asarray(values, float), np.asarray(sizes, float)
    ratio, count = float(y.sum() / x.sum()), len(y)
    if count >= num_all:
        return Estimate(value=ratio, low=ratio, high=ratio)
    if count < 2:
        return Estimate(value=ratio)
    spread = math.sqrt(float(((y - ratio * x) ** 2).sum()) / (count - 1))
    error = math.sqrt((1 - count / num_all) / count) * spread / float(x.mean())
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    return Estimate(value=ratio, low=ratio - half, high=ratio + half)


def _part(
    looks: Sequence[Look], sizes: Sequence[int], value: Callable[[Look], float]
) -> Estimate | None:
    """Estimate a fraction of all bytes, within [0, 1]."""
    found = ratio_interval([value(k) for k in looks], [k.num_bytes for k in looks], len(sizes))
    if found is None or found.low is None or found.high is None:
        return found
    return Estimate(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))


def _total(
    looks: Sequence[Look],
    sizes: Sequence[int],
    value: Callable[[Look], float | None],
    num_bytes: int,
) -> Estimate | None:
    """Estimate a sum over `num_bytes` of voxels; sampled volumes without a value do not count."""
    known = [(v, look.num_bytes) for look in looks if (v := value(look)) is not None]
    found = ratio_interval([v for v, _ in known], [n for _, n in known], len(sizes))
    if found is None:
        return None
    low, high = (None if v is None else max(0.0, v * num_bytes) for v in (found.low, found.high))
    return Estimate(value=found.value * num_bytes, low=low, high=high)


def _sample(
    entries: Sequence[CatalogEntry],
    config: RunConfig,
    run: RunFolder | None,
    num_sample: int,
    on_look: OnLook,
) -> tuple[list[Look], Basis]:
    """Look at a seeded sample of the volumes, with the model of the run if it is trained."""
    rng = np.random.default_rng([config.train.seed, len(entries)])
    places = rng.choice(len(entries), min(num_sample, len(entries)), replace=False)
    model = None if run is None else open_model(run, config)
    looks = []
    for place in sorted(places.tolist()):
        looks.append(look_at(entries[place], config, model))
        on_look(len(looks), len(places), entries[place].volume_id)
    return looks, "threshold" if model is None else "model"


def _actors(config: RunConfig) -> tuple[int, int]:
    """Return the number of pool processes, and the number that fits. Starts no cluster."""
    # A plan for this machine does not wait for Ray.
    kind = "local" if config.ray.address is None else "ray"
    with executor_session(config.ray, kind=kind) as executor:
        capacity = executor.pool_capacity(config.pool)
    return max(1, min(config.pool.max_size, capacity)), capacity


def _assumptions(
    basis: Basis,
    usable: Sequence[Look],
    looks: Sequence[Look],
    config: RunConfig,
    training: TrainingCost,
    actors: int,
) -> tuple[str, ...]:
    said = {
        "receipts": f"savings: from the {len(usable)} finished volumes of the run, which may not "
        "be typical; volumes for review count as kept whole",
        "model": f"savings: from boxes of the run's trained model, with margins, in "
        f"{len(usable)} volumes drawn at random; volumes for review count as kept whole",
        "threshold": f"savings: a rough guess from a threshold on the grey values of a few slices "
        f"of {len(usable)} volumes drawn at random; ctray's boxes differ, above all with "
        "containers and faint samples",
    }
    lines = [said[basis]] if usable else []
    if usable:
        rough = "; the error of the guess itself is not included" if basis == "threshold" else ""
        lines.append(f"intervals: 95%, from the spread of the sampled volumes{rough}")
        lines.append(
            f"hours: from the seconds per byte in the run's receipts, with {actors} processes"
            if basis == "receipts"
            else "hours: from the time to read slices of the sample on this machine; a volume "
            "without a pyramid is read twice; writing a crop takes as long as reading it; "
            f"{actors} processes do not slow each other down"
            + ("; a box takes as long as on a phantom" if basis == "threshold" else "")
        )
    if training.how:
        lines.append(training.how)
    if config.ray.address is not None:
        lines.append(f"the cluster has, or adds, room for {actors} processes")
    lines += [f"not in the sample: {k.volume_id}: {k.failed}" for k in looks if k.failed]
    return tuple(lines)
