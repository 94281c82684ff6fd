"""What the slab network says of a volume, and whether the pretext task agrees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import RunConfig
from ctray.geometry import AXES, Box, Triple
from ctray.localization.cues import SlabSource
from ctray.localization.faces import Faces, own_threshold, sided_faces, surest
from ctray.localization.instances import EvidenceMaps, faces_around, find_specimens
from ctray.localization.margins import Scales
from ctray.localization.slabs import SlabNetwork, all_slab_maps, pooled_profiles
from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float64]

# What a voxel between the faces of two ways adds to the scale of a face.
_APART = 0.25


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
    instances
        The same of each specimen, the largest first: empty where there is but one, None where
        nobody looked.
    """

    profiles: dict[str, FloatArray]
    faces: dict[str, Faces | None]
    factors: Triple
    shape: Triple
    instances: tuple[Refined, ...] | None = None

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

    def scales(self, other: Box | None = None) -> Scales | None:
        """Scales of the six faces in level-0 voxels, a slice at least; None without a box.

        A face is open as far as its profile is, and further where `other`, the box of the
        pretext task, has it elsewhere.
        """
        scales: list[float] = []
        for axis, name in enumerate(AXES):
            faces = self.faces[name]
            if faces is None:
                return None
            ends = (faces.start, faces.stop)
            for side, (end, spread) in enumerate(zip(ends, faces.spread, strict=True)):
                width = self.factors[axis] * spread
                if other is not None:
                    apart = abs(end * self.factors[axis] - other.ranges[axis][side])
                    width += _APART * apart
                scales.append(max(float(self.factors[axis]), width))
        z0, z1, y0, y1, x0, x1 = scales
        return (z0, z1, y0, y1, x0, x1)

    @property
    def certainty(self) -> tuple[float, ...] | None:
        """Certainty of the six faces in [0, 1], see `Faces.certainty`; None without a box."""
        found = [self.faces[name] for name in AXES]
        if any(faces is None for faces in found):
            return None
        return tuple(c for faces in found if faces is not None for c in faces.certainty)

    def to_json(self) -> dict[str, Any]:
        """Receipt form: profiles as probabilities, faces in slices of the working level."""
        return {
            "profiles": {
                name: [round(float(p), 4) for p in 1 / (1 + np.exp(-profile))]
                for name, profile in self.profiles.items()
            },
            "faces": {name: f.to_json() if f else None for name, f in self.faces.items()},
        }


def refine(
    network: SlabNetwork, prepared: Prepared, shape: Triple, side: int, config: RunConfig
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
        Its `refine` section, and whether `localize` asks for several specimens.
    """
    source = SlabSource.of(prepared, cues=network.cues is not None)
    maps = all_slab_maps(network, source, side)
    profiles = pooled_profiles(network, maps)
    faces = sided_faces(profiles, config.refine.threshold)
    found = Refined(profiles=profiles, faces=faces, factors=prepared.factors, shape=shape)
    if not config.localize.instances:
        return found
    evidence = EvidenceMaps(maps=maps, shape=prepared.shape, bias=network.bias.item())
    threshold = own_threshold(profiles.values(), config.refine.threshold)
    specimens = find_specimens(evidence, threshold)
    instances = [replace(found, profiles=s.profiles, faces=s.faces) for s in specimens]
    return replace(found, faces=faces_around(faces, specimens), instances=tuple(instances))


def disagreement(first: Box | None, second: Box | None, min_agreement: float) -> str | None:
    """Why two ways to a box contradict each other, in one line; None if they do not.

    Parameters
    ----------
    first
        Of the pretext task.
    second
        Of the slab network.
    min_agreement
        Smallest intersection over union at which they agree.
    """
    if first is None and second is None:
        return None
    if first is None:
        return "the pretext task finds no sample and the self-trained network does"
    if second is None:
        return "the pretext task finds a sample and the self-trained network does not"
    iou = first.iou(second)
    if iou < min_agreement:
        return (
            "the boxes of the pretext task and of the self-trained network differ "
            f"(intersection over union {iou:.2f})"
        )
    return None
