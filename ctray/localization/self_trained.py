"""Faces by the self-trained network, and by grey values in clear scans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import RunConfig
from ctray.core.geometry import AXES, AxisFaces, Box, Triple
from ctray.learn.self_training.cues import SlabSource
from ctray.learn.self_training.network import SelfTrainedNetwork, evidence_maps, pooled_profiles
from ctray.localization.grey_faces import GreyFaces, find_grey_faces
from ctray.localization.grey_levels import GreyLevel
from ctray.localization.params import PARAMS
from ctray.localization.profile_faces import (
    FacePair,
    FacesByAxis,
    least_peak,
    own_threshold,
    sided_faces,
    slices_beyond,
)
from ctray.localization.specimens import EvidenceMaps, faces_around, find_specimens
from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTrainedFaces:
    """Faces of a volume, or of one specimen in it.

    Parameters
    ----------
    profiles
        Log-odds that a slice of the working level holds sample, by axis.
    faces
        Faces by axis; None for an axis on which no slice holds sample.
    factors
        Level-0 voxels per slice, (z, y, x).
    shape
        Shape of level 0, (z, y, x).
    clear
        Whether the scan is clear, so that the faces are placed by grey values. The width of each
        face then includes its distance from the network's face.
    specimens
        Faces of each specimen, the largest first. Empty if there is only one. None if specimens
        were not searched for.
    """

    profiles: dict[str, FloatArray]
    faces: FacesByAxis
    factors: Triple
    shape: Triple
    clear: bool = False
    specimens: tuple[SelfTrainedFaces, ...] | None = None

    @property
    def pairs(self) -> tuple[FacePair, FacePair, FacePair] | None:
        """Faces along z, y and x; None if any axis shows no sample."""
        z, y, x = (self.faces[name] for name in AXES)
        return None if z is None or y is None or x is None else (z, y, x)

    @property
    def places(self) -> AxisFaces[float] | None:
        """The six faces in slices of the working level; None if any axis shows no sample."""
        if self.pairs is None:
            return None
        return AxisFaces(*(place for pair in self.pairs for place in (pair.start, pair.stop)))

    @property
    def box(self) -> Box | None:
        """Box at level 0, faces at the nearest voxel; None if any axis shows no sample."""
        if self.pairs is None:
            return None
        ranges = []
        for pair, factor, extent in zip(self.pairs, self.factors, self.shape, strict=True):
            start = round(pair.start * factor)
            stop = min(extent, max(1, round(pair.stop * factor)))
            # Keep at least one slice.
            ranges.append([min(start, stop - 1), stop])
        return Box.from_ranges(ranges)

    @property
    def peak(self) -> float:
        """Smallest of the three axes' peak log-odds."""
        return least_peak(self.profiles.values())

    def scales(self, other: Box | None = None) -> AxisFaces[float] | None:
        """Scales of the six faces in level-0 voxels, at least one slice each; None without a box.

        The scale of a face is its width. The scale is larger if `other`, the box of the pretext
        task, places the face elsewhere, or if slices beyond the face are not surely empty.
        """
        if self.pairs is None:
            return None
        scales: list[float] = []
        beyond = slices_beyond(self.profiles, self.faces)
        for axis, pair in enumerate(self.pairs):
            slice_ = float(self.factors[axis])
            for side, place in enumerate((pair.start, pair.stop)):
                width = slice_ * pair.widths[side]
                if other is not None:
                    apart = abs(place * slice_ - other.ranges[axis][side])
                    width += PARAMS.face.apart_weight * apart
                scales.append(max(slice_, width, slice_ * beyond[AXES[axis]][side]))
        return AxisFaces.of(scales, "scales")

    @property
    def confidence(self) -> AxisFaces[float] | None:
        """Confidence of the six faces in [0, 1] (`FacePair.confidence`); None without a box."""
        if self.pairs is None:
            return None
        return AxisFaces(*(c for pair in self.pairs for c in pair.confidence))

    def to_json(self) -> dict[str, Any]:
        """Receipt form: profiles as probabilities, faces in slices of the working level."""
        return {
            "profiles": {
                name: [round(float(p), 4) for p in 1 / (1 + np.exp(-profile))]
                for name, profile in self.profiles.items()
            },
            "faces": {name: f.to_json() if f else None for name, f in self.faces.items()},
            "clear": self.clear,
        }


def find_self_trained_faces(
    network: SelfTrainedNetwork,
    prepared: Prepared,
    shape: Triple,
    config: RunConfig,
    levels: Iterable[GreyLevel] = (),
) -> SelfTrainedFaces:
    """Find the faces of a prepared working level.

    Parameters
    ----------
    network
        Trained network. It runs on its current device.
    prepared, shape
        Working level, and the shape of level 0.
    config
        Configuration. Only `self_train` and `localize.specimens` are used.
    levels
        Levels whose grey values are searched, in this order, until one is clear.
    """
    source = SlabSource.of(prepared, cues=network.cues is not None)
    maps = evidence_maps(network, source, max(prepared.shape))
    profiles = pooled_profiles(network, maps)
    wanted = config.self_train.threshold
    fraction = None if wanted == "clarity" else wanted
    faces = sided_faces(profiles, fraction)
    found = SelfTrainedFaces(profiles=profiles, faces=faces, factors=prepared.factors, shape=shape)
    if not config.localize.specimens:
        return sharpened([found], levels)[0]
    evidence = EvidenceMaps(maps=maps, shape=prepared.shape, bias=network.bias.item())
    specimens = find_specimens(evidence, own_threshold(profiles.values(), fraction))
    if not specimens:
        return replace(sharpened([found], levels)[0], specimens=())
    kept = [replace(found, profiles=s.profiles, faces=s.faces) for s in specimens]
    kept = sharpened(kept, levels)
    # The faces around all specimens are clear if every specimen is clear.
    clear = all(specimen.clear for specimen in kept)
    return replace(
        found,
        faces=faces_around({} if clear else faces, [k.faces for k in kept]),
        clear=clear,
        specimens=tuple(kept),
    )


def sharpened(
    found: Sequence[SelfTrainedFaces], levels: Iterable[GreyLevel]
) -> list[SelfTrainedFaces]:
    """Specimens of one volume, with faces placed by grey values in clear scans.

    Parameters
    ----------
    found
        All specimens, with the faces of the network.
    levels
        Levels to search. Each level is used for the specimens that are not clear in an earlier one.
    """
    sharp = list(found)
    guesses = [guess for specimen in found if (guess := specimen.places) is not None]
    if len(guesses) < len(found):
        return sharp
    for level in levels:
        for number, faces in enumerate(find_grey_faces(level, guesses)):
            if faces is not None and not sharp[number].clear:
                sharp[number] = _with_grey_faces(found[number], faces)
        if all(specimen.clear for specimen in sharp):
            break
    return sharp


def _with_grey_faces(found: SelfTrainedFaces, grey: GreyFaces) -> SelfTrainedFaces:
    """Faces placed by grey values, except that two kinds of slices are never cut.

    The first kind is slices that the network is sure of. The second kind is slices beyond a gap
    that the network finds empty: they may hold a specimen that is too faint or too small for the
    search by grey values.
    """
    sure = sided_faces(found.profiles, PARAMS.grey.sure_fraction)
    faces: FacesByAxis = {}
    for axis, name in enumerate(AXES):
        own, core = found.faces[name], sure[name]
        assert own is not None, "without all faces there is no guess"
        low, high = grey.places.pairs[axis]
        low_apart, high_apart = _has_gap(found.profiles[name], own, low, high)
        low, high = own.start if low_apart else low, own.stop if high_apart else high
        if core is not None:
            low = min(low, max(core.start, own.start))
            high = max(high, min(core.stop, own.stop))
        low_width, high_width = (
            by_network if by_grey is None else by_grey
            for by_grey, by_network in zip(grey.widths.pairs[axis], own.widths, strict=True)
        )
        faces[name] = replace(
            own,
            start=low,
            stop=high,
            widths=(
                low_width + PARAMS.face.apart_weight * abs(low - own.start),
                high_width + PARAMS.face.apart_weight * abs(high - own.stop),
            ),
        )
    return replace(found, faces=faces, clear=True)


def _has_gap(profile: FloatArray, own: FacePair, low: float, high: float) -> tuple[bool, bool]:
    """Whether the network finds empty slices between its faces and `low`, `high`."""
    middles = np.arange(len(profile)) + 0.5
    before = profile[(middles > own.start) & (middles < low)]
    beyond = profile[(middles > high) & (middles < own.stop)]
    below_low, below_high = before < own.thresholds[0], beyond < own.thresholds[1]
    return bool(below_low.any()), bool(below_high.any())
