"""Classical baselines that find the sample's box by thresholds, made as strong as possible.

The unsupervised baselines are Otsu's threshold with the largest component, for each map, and the
box of all voxels above 0.

The supervised baselines use the threshold of each map that fits the truth best. ``-best`` is the
paper's baseline: one threshold for the whole archive. ``-best-each`` is one threshold for every
volume; no rule can choose better. These baselines use the truth of the volumes on which they are
scored, which is impossible in practice. They also use the better of two foregrounds (all voxels
above the threshold, or the largest component). After subtracting the median, they use the better of
two signs (signed, absolute).

All maps assume that the sample is brighter or more varied than its surroundings. Only the absolute
difference and the deviation find darker samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ctray.core.errors import ConfigError
from ctray.core.geometry import Box
from ctray.evaluate.baseline_maps import FloatArray, baseline_maps
from ctray.evaluate.baseline_search import (
    BaselineCase,
    Choice,
    Scan,
    chosen,
    first_scan,
    next_thresholds,
    otsu,
    searched,
)
from ctray.evaluate.baseline_thresholds import IntArray, nonzero_faces, thin

__all__ = ["BaselineCase", "BaselineResult", "run_baselines"]

_NUM_PASSES = 3
# Gaussian of the smoothed maps, voxels of the working level. It is smaller for the local deviation,
# whose window also averages.
_SIGMA, _DEVIATION_SIGMA = 1.5, 1.0
# The window of the local deviation is a cube of 2 radius + 1 voxels.
_RADIUS = 2
# Numbers of thresholds: first from quantiles of all volumes, then between the neighbours of the
# best one, for the archive and for each volume.
_NUM_COARSE, _NUM_FINE = 40, 12
# Family of methods -> the maps that it may choose from.
FAMILIES = {
    "raw": ("raw",),
    "smoothed": ("smoothed",),
    "zmedian": ("zmedian", "zmedian-absolute"),
    "localstd": ("localstd",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineResult:
    """Boxes of one baseline.

    Parameters
    ----------
    method
        ``raw-best``, ``raw-best-each``, ``raw-otsu``, the same names with ``smoothed``, ``zmedian``
        and ``localstd`` instead of ``raw``, or ``nonzero``.
    supervised
        Whether the truth was used.
    variant
        The map, and ``all`` foreground or the largest ``component``. If there is a choice, the
        truth decides.
    boxes, thresholds
        Boxes at level 0 and thresholds, by volume id. The box is None if no voxel is above the
        threshold. The threshold is None for a constant map and for ``nonzero``.
    """

    method: str
    supervised: bool
    variant: str
    boxes: dict[str, Box | None]
    thresholds: dict[str, float | None]


def run_baselines(
    cases: Sequence[BaselineCase],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[BaselineResult, ...]:
    """Find the boxes of every baseline in every volume.

    Parameters
    ----------
    cases
        Volumes with their truth. Volumes without a sample or without a scored face are not used to
        choose thresholds. If there are no other volumes, the supervised methods are left out.
    progress
        Called with (done, total) after each volume of each of the three passes.

    Notes
    -----
    A missing box counts as the whole volume, as in the scores. The search for all foreground tries
    every value at which a box changes, evenly thinned to 8192 values. Thresholds for components
    come from a coarse scan and a fine scan around the best coarse threshold.
    """
    if not cases:
        raise ConfigError("no volume to run the baselines on; the run and the truth share none")
    scans, nonzero = _scan_all(cases, progress)
    results = []
    for family, maps in FAMILIES.items():
        own = {m: scans[m] for m in maps}
        shared, each = searched(cases, own)
        if shared is not None and each is not None:
            results.append(_result(f"{family}-best", cases, shared, supervised=True))
            results.append(_result(f"{family}-best-each", cases, each, supervised=True))
        results.append(_result(f"{family}-otsu", cases, otsu(cases, own)))
    zero = chosen("raw, all", cases, [None] * len(cases), nonzero)
    results.append(_result("nonzero", cases, zero))
    return tuple(results)


def _scan_all(
    cases: Sequence[BaselineCase],
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, list[Scan]], IntArray]:
    """Scan every map of every volume: scans by map and volume, and boxes of all voxels above 0."""
    scans: dict[str, list[Scan]] = {m: [] for maps in FAMILIES.values() for m in maps}
    nonzero: list[IntArray] = []
    done = 0

    def load(case: BaselineCase) -> Iterator[tuple[str, FloatArray]]:
        nonlocal done
        yield from baseline_maps(
            case.arrays(), sigma=_SIGMA, deviation_sigma=_DEVIATION_SIGMA, radius=_RADIUS
        )
        done += 1
        if progress is not None:
            progress(done, _NUM_PASSES * len(cases))

    for case in cases:
        for name, values in load(case):
            scans[name].append(first_scan(values))
            if name == "raw":
                nonzero.append(nonzero_faces(values)[0])
    # Use the same thresholds in all volumes, to find one threshold for the whole archive.
    coarse = {
        name: thin(np.concatenate([s.quantiles for s in own]), _NUM_COARSE)
        for name, own in scans.items()
    }
    for i, case in enumerate(cases):
        for name, values in load(case):
            scans[name][i].add(values, shared=coarse[name])
    fine = {n: next_thresholds(cases, own, coarse[n], _NUM_FINE) for n, own in scans.items()}
    for i, case in enumerate(cases):
        for name, values in load(case):
            scans[name][i].add(values, shared=fine[name][0], own=fine[name][1][i])
    return scans, np.stack(nonzero)


def _result(
    method: str, cases: Sequence[BaselineCase], choice: Choice, *, supervised: bool = False
) -> BaselineResult:
    ids = [c.truth.volume_id for c in cases]
    boxes = [_to_box(c, faces) for c, faces in zip(cases, choice.faces, strict=True)]
    return BaselineResult(
        method=method,
        supervised=supervised,
        variant=choice.variant,
        boxes=dict(zip(ids, boxes, strict=True)),
        thresholds=dict(zip(ids, choice.limits, strict=True)),
    )


def _to_box(case: BaselineCase, faces: IntArray) -> Box | None:
    if faces[0] < 0:
        return None
    box = Box.from_ranges(faces.reshape(3, 2).tolist(), level=1)
    return box.to_level(0, case.factors, case.truth.shape)
