"""Classical baselines that find the sample's box by thresholds, made as strong as possible.

Unsupervised: Otsu's threshold and the largest component, per map; the box of all voxels above 0.

Supervised: per map, the threshold that fits the truth best. One threshold for the whole archive is
``-best``, the paper's baseline. One for every volume is ``-best-each``: no rule can choose better.
These baselines see the truth of the volumes that they are scored on, which no method in use can.
They also take the better of two foregrounds (all voxels above the threshold, or the largest
component) and, after subtracting the median, of two signs (signed, absolute).

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
# Gaussian of the smoothed maps, voxels of the working level; less before the local deviation, whose
# window averages as well.
_SIGMA, _DEVIATION_SIGMA = 1.5, 1.0
# The window of the local deviation is a cube of 2 radius + 1 voxels.
_RADIUS = 2
# Thresholds tried at first, from quantiles of all volumes, and then between the neighbours of the
# best one, for the archive and for each volume.
_NUM_COARSE, _NUM_FINE = 40, 12
# Family of methods -> the maps among which it may choose.
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
        ``raw-best``, ``raw-best-each``, ``raw-otsu``, the same with ``smoothed``, ``zmedian``
        and ``localstd``, or ``nonzero``.
    supervised
        Whether the truth was used.
    variant
        Chosen by the truth: the map, and ``all`` foreground or the largest ``component``.
    boxes, thresholds
        By volume id; box at level 0, None where nothing is above the threshold. The threshold
        is None where there is none: in a constant map, and for ``nonzero``.
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
        The volumes, truth included. Those without a sample, or without a face that counts, take
        no part in choosing thresholds; without any other volume the supervised methods are left
        out.
    progress
        Called with (done, total) after each volume of each of the three passes.

    Notes
    -----
    A missing box counts as the whole volume, as in the scores. Thresholds for all foreground are
    exact: every value at which a box changes is tried, evenly thinned to 8192. Thresholds for
    components come from a coarse scan and a fine scan around its best.
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
    """Scan every map of every volume: by map, a scan a volume; and the boxes of what is above 0."""
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
    # One pool of thresholds a map: a threshold for the whole archive must be tried in all of it.
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
