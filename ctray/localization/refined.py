"""What the slab network says of a volume, what grey values add, and whether the pretext agrees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import RunConfig
from ctray.core.geometry import AXES, AxisFaces, Box, Triple
from ctray.learn.selftrain.cues import SlabSource
from ctray.learn.selftrain.slabs import SlabNetwork, all_slab_maps, pooled_profiles
from ctray.localization.clear_faces import ClearFaces, Ends, GreyLevel, find_clear_faces
from ctray.localization.faces import Faces, beyond_faces, own_threshold, sided_faces, surest
from ctray.localization.specimens import (
    EvidenceMaps,
    FacesByAxis,
    faces_around,
    find_specimens,
)
from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float64]

# What a voxel between the faces of two ways adds to the scale of a face.
_APART = 0.25
# A slice that is more than this part of the way from empty to the surest one is sample, whatever
# grey values say: a tail may be fainter than they are told to look for.
_SURE_PART = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Refined:
    """Faces of a volume from its slabs.

    Parameters
    ----------
    profiles
        Log-odds that a slice of the working level holds sample, by axis.
    faces
        By axis, None where no slice holds sample.
    factors
        Level-0 voxels per slice, (z, y, x).
    shape
        Of level 0.
    clear
        Whether the faces are where grey values have them, which told the sample from its medium;
        then they are open by what lies between them and those of the slab network, too.
    specimens
        The same of each specimen, the largest first: empty where there is but one, None where
        nobody looked.
    """

    profiles: dict[str, FloatArray]
    faces: dict[str, Faces | None]
    factors: Triple
    shape: Triple
    clear: bool = False
    specimens: tuple[Refined, ...] | None = None

    @property
    def box(self) -> Box | None:
        """Box at level 0, faces at the nearest voxel; None if any axis shows no sample."""
        ranges = []
        for axis, name in enumerate(AXES):
            faces = self.faces[name]
            if faces is None:
                return None
            start = round(faces.start * self.factors[axis])
            stop = min(self.shape[axis], max(1, round(faces.stop * self.factors[axis])))
            # A single slice that hardly shows anything still is a slice.
            ranges.append([min(start, stop - 1), stop])
        return Box.from_ranges(ranges)

    @property
    def peak(self) -> float:
        """Log-odds of the surest slice, of the axis where they are least."""
        return surest(self.profiles.values())

    def scales(self, other: Box | None = None) -> AxisFaces[float] | None:
        """Scales of the six faces in level-0 voxels, a slice at least; None without a box.

        A face is open as far as its profile is, and further where `other`, the box of the
        pretext task, has it elsewhere, or slices beyond it are anything but empty.
        """
        scales: list[float] = []
        beyond = beyond_faces(self.profiles, self.faces)
        for axis, name in enumerate(AXES):
            faces = self.faces[name]
            if faces is None:
                return None
            slice_ = float(self.factors[axis])
            ends = (faces.start, faces.stop)
            for side, (end, spread) in enumerate(zip(ends, faces.spread, strict=True)):
                width = slice_ * spread
                if other is not None:
                    width += _APART * abs(end * slice_ - other.ranges[axis][side])
                scales.append(max(slice_, width, slice_ * beyond[name][side]))
        return AxisFaces.of(scales)

    @property
    def certainty(self) -> AxisFaces[float] | None:
        """Certainty of the six faces in [0, 1], see `Faces.certainty`; None without a box."""
        found = [self.faces[name] for name in AXES]
        if any(faces is None for faces in found):
            return None
        return AxisFaces.of([c for faces in found if faces is not None for c in faces.certainty])

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


def refine(
    network: SlabNetwork,
    prepared: Prepared,
    shape: Triple,
    side: int,
    config: RunConfig,
    levels: Iterable[GreyLevel] = (),
) -> Refined:
    """Find the faces of a prepared working level with the slab network.

    Parameters
    ----------
    network
        Trained; used on the device that it is on.
    prepared, shape
        Working level, and the shape of level 0.
    side
        Side of the square canvas, pixels.
    config
        Its `self_train` section, and whether `localize` asks for several specimens.
    levels
        Where clear faces are looked for, until some are found.
    """
    source = SlabSource.of(prepared, cues=network.cues is not None)
    maps = all_slab_maps(network, source, side)
    profiles = pooled_profiles(network, maps)
    wanted = config.self_train.threshold
    part = None if wanted == "clarity" else wanted
    faces = sided_faces(profiles, part)
    found = Refined(profiles=profiles, faces=faces, factors=prepared.factors, shape=shape)
    if not config.localize.specimens:
        return sharpened([found], levels)[0]
    evidence = EvidenceMaps(maps=maps, shape=prepared.shape, bias=network.bias.item())
    specimens = find_specimens(evidence, own_threshold(profiles.values(), part))
    if not specimens:
        return replace(sharpened([found], levels)[0], specimens=())
    kept = [replace(found, profiles=s.profiles, faces=s.faces) for s in specimens]
    kept = sharpened(kept, levels)
    # Where all specimens are clear, so is what is around them.
    clear = all(specimen.clear for specimen in kept)
    return replace(
        found,
        faces=faces_around({} if clear else faces, [k.faces for k in kept]),
        clear=clear,
        specimens=tuple(kept),
    )


def sharpened(found: Sequence[Refined], levels: Iterable[GreyLevel]) -> list[Refined]:
    """Specimens of one volume with their faces where grey values have them, if those tell.

    Parameters
    ----------
    found
        All of them, with the faces of the slab network.
    levels
        Where to look, for those that none before it told.
    """
    sharp = list(found)
    guesses = [_ends(specimen) for specimen in found]
    if any(guess is None for guess in guesses):
        return sharp
    for level in levels:
        clear = find_clear_faces(level, [g for g in guesses if g is not None])
        for place, faces in enumerate(clear):
            if faces is not None and not sharp[place].clear:
                sharp[place] = _with_clear(found[place], faces)
        if all(specimen.clear for specimen in sharp):
            break
    return sharp


def _ends(found: Refined) -> Ends | None:
    z, y, x = (found.faces[name] for name in AXES)
    if z is None or y is None or x is None:
        return None
    return ((z.start, z.stop), (y.start, y.stop), (x.start, x.stop))


def _with_clear(found: Refined, clear: ClearFaces) -> Refined:
    """Faces where grey values have them, but none cuts slices that the network is sure of.

    Nor what lies apart from the rest by slices that are empty to the network: it may be a specimen
    that is fainter, or smaller, than what the grey values were searched for.
    """
    sure = sided_faces(found.profiles, _SURE_PART)
    faces: FacesByAxis = {}
    for axis, name in enumerate(AXES):
        own, core = found.faces[name], sure[name]
        assert own is not None, "without all faces there is no guess"
        low, high = clear.ends[axis]
        low_apart, high_apart = _apart_from(found.profiles[name], own, low, high)
        low, high = own.start if low_apart else low, own.stop if high_apart else high
        if core is not None:
            low = min(low, max(core.start, own.start))
            high = max(high, min(core.stop, own.stop))
        low_spread, high_spread = (
            of_network if of_grey is None else of_grey
            for of_grey, of_network in zip(clear.spreads[axis], own.spread, strict=True)
        )
        faces[name] = replace(
            own,
            start=low,
            stop=high,
            spread=(
                low_spread + _APART * abs(low - own.start),
                high_spread + _APART * abs(high - own.stop),
            ),
        )
    return replace(found, faces=faces, clear=True)


def _apart_from(profile: FloatArray, own: Faces, low: float, high: float) -> tuple[bool, bool]:
    """Whether slices that are empty to the network lie between its low face and `low`, or beyond.

    Beyond is from `high` to its high face.
    """
    middles = np.arange(len(profile)) + 0.5
    before = profile[(middles > own.start) & (middles < low)]
    beyond = profile[(middles > high) & (middles < own.stop)]
    below_low, below_high = before < own.thresholds[0], beyond < own.thresholds[1]
    return bool(below_low.any()), bool(below_high.any())
