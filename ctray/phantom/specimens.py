"""Specimens as unions of ellipsoids along a bent spine, in units of their own length.

Local axes: z runs from head (near 0) to tail (near 1), y is dorsal, x is lateral.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ctray.phantom.fields import Blob, Vector, frame_along, random_rotation

Role = Literal["body", "fin", "organ"]
EYE, LENS, NERVE = 1, 2, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One ellipsoid of a specimen.

    ``body`` and ``fin`` parts make the surface; an ``organ`` replaces the grey value inside it
    by `grey` (in units of the structure's standard deviation, relative to the tissue) with an
    edge of `edge` times its smallest radius, and carries a `label` (0: none).
    `rigid` parts keep their shape where a specimen is made stouter.
    """

    blob: Blob
    role: Role = "body"
    grey: float = 0.0
    edge: float = 0.1
    label: int = 0
    rigid: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Spine:
    """Curve from head to tail: `points` (n, 3), unit `directions` and dorsal `ups` (n, 3)."""

    points: Vector
    directions: Vector
    ups: Vector

    @classmethod
    def draw(cls, rng: np.random.Generator, *, bend: float, wiggle: float) -> Spine:
        """Spine of unit length that turns by `bend` radians towards dorsal, most at the tail."""
        t = np.linspace(0, 1, 101)
        phi = bend * t**1.6
        psi = wiggle * np.sin(2 * np.pi * (t * rng.uniform(0.5, 1.0) + rng.random()))
        directions = np.stack(
            [np.cos(phi) * np.cos(psi), np.sin(phi) * np.cos(psi), np.sin(psi)], axis=1
        )
        ups = np.stack([-np.sin(phi), np.cos(phi), np.zeros_like(phi)], axis=1)
        points = np.cumsum(directions, axis=0) / len(t)
        return cls(points=points, directions=directions, ups=ups)

    def at(self, t: float) -> tuple[Vector, Vector]:
        """Point (3,) and frame (3, 3; columns along, dorsal, lateral) at `t` in [0, 1]."""
        i = round(float(np.clip(t, 0, 1)) * (len(self.points) - 1))
        return self.points[i], frame_along(self.directions[i], self.ups[i])

    def blob(
        self, t: float, radii: tuple[float, float, float], dorsal: float = 0, lateral: float = 0
    ) -> Blob:
        """Ellipsoid at `t`, moved dorsally and laterally; radii along, dorsal, lateral."""
        point, frame = self.at(t)
        centre = point + frame @ np.array([0.0, dorsal, lateral])
        return Blob(centre=centre, radii=np.array(radii), rotation=frame)


def embryo(rng: np.random.Generator) -> tuple[Part, ...]:
    """Tailbud-like embryo: stout head and belly, curled thin tail with a fin seam, organs."""
    spine = Spine.draw(rng, bend=rng.uniform(0.6, 3.0), wiggle=rng.uniform(0.0, 0.5))
    knots = np.array([0.0, 0.08, 0.18, 0.34, 0.50, 0.62, 0.75, 1.0])
    height = np.array([0.09, 0.15, 0.15, 0.20, 0.17, 0.09, 0.05, 0.022])
    height = height * rng.uniform(0.85, 1.15, len(knots)) * rng.uniform(1.0, 1.3)
    flat = rng.uniform(0.75, 1.0)
    parts = []
    for t in np.linspace(0.05, 1.0, 20):
        r = float(np.interp(t, knots, height))
        sag = -0.3 * r if 0.25 < t < 0.55 else 0.0
        parts.append(Part(blob=spine.blob(t, (max(r * 0.9, 0.05), r, r * flat), dorsal=sag)))
    parts += _fins(rng, spine, height[4:], knots[4:])
    parts += _embryo_organs(rng, spine, float(height[1]), float(height[3]) * flat)
    return tuple(parts)


def _fins(rng: np.random.Generator, spine: Spine, height: Vector, knots: Vector) -> list[Part]:
    """Seam of flat fins above and below the tail."""
    fins = []
    breadth = rng.uniform(0.035, 0.07)
    for t in np.linspace(0.66, 0.98, 6):
        r = float(np.interp(t, knots, height))
        for side in (-1, 1):
            blob = spine.blob(t, (0.07, breadth, 0.012), dorsal=side * (r + breadth * 0.5))
            fins.append(Part(blob=blob, role="fin"))
    return fins


def _grey(rng: np.random.Generator, low: float, high: float) -> float:
    """Contrast of an organ, of either sign."""
    return float(rng.choice([-1.0, 1.0]) * rng.uniform(low, high))


def _embryo_organs(rng: np.random.Generator, spine: Spine, head: float, belly: float) -> list[Part]:
    organs = []

    def add(blob: Blob, grey: float, edge: float = 0.1) -> None:
        organs.append(Part(blob=blob, role="organ", grey=grey, edge=edge))

    yolk = _grey(rng, 0.8, 1.5)
    add(spine.blob(0.38, (0.17, belly * 0.62, belly * 0.68), dorsal=-0.35 * belly), yolk, 0.5)
    for t in rng.uniform(0.26, 0.5, 5):
        r = belly * rng.uniform(0.15, 0.28)
        offset = rng.uniform(-0.45, 0.45, 2) * belly
        add(
            spine.blob(t, (r, r, r), offset[0] - 0.25 * belly, offset[1]),
            yolk + _grey(rng, 0.6, 1.5),
        )
    for t in np.linspace(0.14, 0.9, 16):
        r = 0.026 if t < 0.6 else 0.016
        add(spine.blob(t, (0.04, r, r), dorsal=0.45 * head if t < 0.6 else 0.0), -1.8)
    brain = _grey(rng, 0.8, 1.6)
    add(spine.blob(0.10, (0.075, head * 0.45, head * 0.5), dorsal=head * 0.35), brain, 0.25)
    add(spine.blob(0.10, (0.045, head * 0.2, head * 0.14), dorsal=head * 0.4), -brain)
    for side in (-1, 1):
        r = 0.3 * head * rng.uniform(0.85, 1.1)
        eye = {"dorsal": 0.2 * head, "lateral": side * 0.68 * head}
        add(spine.blob(0.09, (r, r, r), **eye), 2.2)
        add(spine.blob(0.09, (r * 0.5, r * 0.5, r * 0.5), **eye), -0.5)
        add(spine.blob(0.19, (0.02, 0.02, 0.02), 0.3 * head, side * 0.55 * head), 3.5)
    heart = rng.uniform(0.3, 0.4) * head
    add(spine.blob(0.22, (heart, heart, heart), dorsal=-0.7 * head), _grey(rng, 1.0, 2.0))
    add(spine.blob(0.05, (0.035, 0.03, 0.05), dorsal=-0.35 * head), -2.5)
    return organs


def fish(rng: np.random.Generator) -> tuple[Part, ...]:
    """Fish with fins and a visual system labelled eye, lens and nerve."""
    spine = Spine.draw(rng, bend=rng.uniform(-0.25, 0.25), wiggle=rng.uniform(0.0, 0.12))
    knots = np.array([0.0, 0.06, 0.16, 0.32, 0.5, 0.7, 0.85, 1.0])
    height = np.array([0.04, 0.09, 0.13, 0.145, 0.12, 0.07, 0.04, 0.03])
    height = height * rng.uniform(0.9, 1.1, len(knots))
    flat = rng.uniform(0.65, 0.85)
    parts = []
    for t in np.linspace(0.03, 0.92, 20):
        r = float(np.interp(t, knots, height))
        belly = -0.25 * r if 0.2 < t < 0.5 else 0.0
        parts.append(Part(blob=spine.blob(t, (max(0.9 * r, 0.05), r, r * flat), dorsal=belly)))
    parts += _fish_fins(rng, spine)
    parts += _fish_organs(rng, spine, float(height[2]), flat)
    parts += _visual_system(rng, spine, float(height[2]) * flat)
    return tuple(parts)


def _fish_fins(rng: np.random.Generator, spine: Spine) -> list[Part]:
    thin = 0.012
    blobs = [
        spine.blob(0.97, (0.06, 0.06, thin), dorsal=0.05),
        spine.blob(0.97, (0.06, 0.06, thin), dorsal=-0.05),
        spine.blob(0.93, (0.06, 0.045, thin)),
        spine.blob(0.68, (0.09, 0.06, thin), dorsal=0.10),
        spine.blob(0.66, (0.11, 0.06, thin), dorsal=-0.10),
    ]
    for side in (-1, 1):
        fin = spine.blob(0.27, (0.05, thin, 0.09), dorsal=-0.06, lateral=side * 0.15)
        twist = frame_along(
            np.array([1.0, 0.5, side * rng.uniform(0.2, 0.7)]), np.array([0, 1.0, 0])
        )
        blobs.append(replace(fin, rotation=fin.rotation @ twist))
    return [Part(blob=b, role="fin") for b in blobs]


def _fish_organs(rng: np.random.Generator, spine: Spine, r: float, flat: float) -> list[Part]:
    organs = []

    def add(blob: Blob, grey: float, edge: float = 0.1) -> None:
        organs.append(Part(blob=blob, role="organ", grey=grey, edge=edge))

    add(spine.blob(0.36, (0.12, 0.5 * r, 0.55 * r), dorsal=-0.55 * r), _grey(rng, 0.6, 1.2), 0.4)
    for t in rng.uniform(0.28, 0.46, 5):
        s = r * rng.uniform(0.15, 0.3)
        y, x = rng.uniform(-0.8, -0.2) * r, rng.uniform(-0.4, 0.4) * r
        add(spine.blob(t, (s, s, s), y, x), _grey(rng, 0.8, 1.6))
    add(spine.blob(0.42, (0.09, 0.25 * r, 0.3 * r), dorsal=0.12 * r), -3.0)
    add(spine.blob(0.14, (0.07, 0.35 * r, 0.4 * r * flat), dorsal=0.35 * r), 1.0, 0.3)
    for t in np.linspace(0.22, 0.92, 24):
        add(spine.blob(t, (0.010, 0.018, 0.018), dorsal=0.45 * r * (1 - t)), 2.5)
    for side in (-1, 1):
        add(spine.blob(0.20, (0.018, 0.018, 0.018), 0.2 * r, side * 0.35 * r), 4.0)
        for t in (0.17, 0.19, 0.21):
            add(spine.blob(t, (0.006, 0.4 * r, 0.15 * r), -0.3 * r, side * 0.45 * r), 1.8)
    return organs


def _visual_system(rng: np.random.Generator, spine: Spine, half_width: float) -> list[Part]:
    """Eyes at the sides of the head, a lens in each, nerves that cross towards the brain."""
    organs = []
    eye_t, r = 0.10, rng.uniform(0.042, 0.05)
    out = 0.62 * half_width
    chiasm_t, steps = 0.125, 9
    for side in (-1, 1):
        for s in np.linspace(0, 1, steps):
            # The nerve leaves behind the eye, crosses the middle and ends on the other side.
            lateral = side * (out - 0.8 * r) * (1 - 1.6 * s)
            blob = spine.blob(
                eye_t + 0.005 + (chiasm_t - eye_t + 0.03) * s,
                (0.012, 0.012, 0.014),
                dorsal=0.02 * s,
                lateral=float(lateral),
            )
            organs.append(Part(blob=blob, role="organ", grey=1.2, label=NERVE, rigid=True))
    for side in (-1, 1):
        eye = spine.blob(eye_t, (r, r, 0.8 * r), dorsal=0.02, lateral=side * out)
        lens = spine.blob(eye_t, (0.5 * r,) * 3, dorsal=0.02, lateral=side * (out + 0.25 * r))
        organs.append(Part(blob=eye, role="organ", grey=-1.2, label=EYE, rigid=True))
        organs.append(Part(blob=lens, role="organ", grey=3.0, label=LENS, rigid=True))
    return organs


def stouter(parts: tuple[Part, ...], girth: float) -> tuple[Part, ...]:
    """Widen a specimen `girth` times across its local z axis; rigid parts grow evenly."""
    factors = np.array([1.0, girth, girth])
    result = []
    for part in parts:
        blob = part.blob
        if part.rigid:
            radii, rotation = blob.radii * min(girth, 1.25), blob.rotation
        else:
            rotation, radii, _ = np.linalg.svd(factors[:, None] * blob.rotation * blob.radii)
        moved = Blob(centre=blob.centre * factors, radii=radii, rotation=rotation)
        result.append(replace(part, blob=moved))
    return tuple(result)


def blob_cluster(rng: np.random.Generator) -> tuple[Part, ...]:
    """Small roundish specimen of a few lobes, as seeds or larvae lie several in one tube."""
    parts = []
    for _ in range(int(rng.integers(3, 6))):
        centre = rng.uniform(-0.19, 0.19, 3)
        radii = rng.uniform(0.16, 0.3, 3)
        parts.append(Part(blob=Blob(centre=centre, radii=radii, rotation=random_rotation(rng))))
    parts.append(Part(blob=Blob(centre=np.zeros(3), radii=np.full(3, 0.24), rotation=np.eye(3))))
    for _ in range(6):
        blob = Blob(
            centre=rng.uniform(-0.25, 0.25, 3),
            radii=rng.uniform(0.05, 0.12, 3),
            rotation=random_rotation(rng),
        )
        parts.append(Part(blob=blob, role="organ", grey=_grey(rng, 0.8, 2.2)))
    return tuple(parts)
