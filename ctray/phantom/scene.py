"""What surrounds the specimen: medium, circle, container, distractors and scan artefacts.

Every contribution is evaluated on a slab of whole slices, so that a large volume needs no more
than its own float image. Grey values are in contrast units, see `SceneSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Box, Triple
from ctray.phantom.fields import Blob, Floats, SmoothField, Vector, random_rotation
from ctray.phantom.spec import PhantomSpec
from ctray.phantom.tube import CIRCLE_RADIUS, Tube

Bools = npt.NDArray[np.bool_]
AIR = -0.8
WALL_STEP = 1.3
MEDIUM_DRIFT = 0.06


@dataclass(frozen=True, kw_only=True, slots=True)
class Distractor:
    """Bubble (dark with a bright rim) or grain (bright, sharp) in the medium."""

    blob: Blob
    grey: float
    rim: float


class Scene:
    """The scene of one spec, ready to be evaluated slab by slab."""

    def __init__(self, spec: PhantomSpec, tube: Tube | None) -> None:
        self.spec, self.tube = spec, tube
        self.shape: Triple = spec.shape
        self.middle = (np.array(spec.shape) - 1) / 2
        self.side = min(spec.shape[1:])
        self._drift = SmoothField.draw(spec.rng("medium"), spec.shape, 0.30 * self.side)
        rng = spec.rng("rings")
        count = int(np.hypot(*spec.shape[1:]) / 2) + 3
        self._rings = (rng.standard_normal((3, count)) * (rng.random(count) < 0.4)).astype(
            np.float32
        )
        self._y = np.arange(self.shape[1], dtype=np.float32)[:, None]
        self._x = np.arange(self.shape[2], dtype=np.float32)[None, :]
        self._radius = np.hypot(self._y - self.middle[1], self._x - self.middle[2]).astype(
            np.float32
        )
        self.distractors = self._draw_distractors()
        self._sources = self._draw_sources()

    def slab(self, start: int, stop: int) -> Box:
        """Box of the slices [start, stop)."""
        return Box(start=(start, 0, 0), stop=(stop, *self.shape[1:]))

    def circle(self) -> Bools:
        """Field of view in a slice, (y, x): the reconstruction circle or everything."""
        if not self.spec.scene.reconstruction_circle:
            return np.ones(self.shape[1:], bool)
        circle: Bools = self._radius <= CIRCLE_RADIUS * self.side
        return circle

    def surroundings(self, slab: Box) -> tuple[Floats, Bools]:
        """Medium, air, wall and distractors: grey values, and where it is plain medium."""
        image = self._drift.values(slab)
        image *= np.float32(MEDIUM_DRIFT)
        medium = np.broadcast_to(self.circle(), slab.shape).copy()
        if self.tube is not None:
            self._add_tube(image, medium, slab)
        for item in self.distractors:
            self._add_distractor(item, image, medium, slab)
        return image, medium

    def _add_tube(self, image: Floats, medium: Bools, slab: Box) -> None:
        assert self.tube is not None
        wall = np.float32(max(self.spec.scene.medium_contrast, 0.0) + WALL_STEP)
        heights = np.arange(slab.start[0], slab.stop[0], dtype=float)
        for i, (cy, cx) in enumerate(self.tube.axis(heights, self.middle[0])):
            r = np.hypot(self._y - np.float32(cy), self._x - np.float32(cx))
            outside = np.clip(r - self.tube.outer + 0.5, 0, 1)
            in_wall = np.clip(r - self.tube.inner + 0.5, 0, 1) - outside
            image[i] += in_wall * (wall - image[i]) + outside * (AIR - image[i])
            medium[i] &= r < self.tube.inner - 0.5

    def _add_distractor(self, item: Distractor, image: Floats, medium: Bools, slab: Box) -> None:
        part = item.blob.bounds(3, slab)
        if part is None:
            return
        where = tuple(
            slice(a - o, b - o) for a, b, o in zip(part.start, part.stop, slab.start, strict=True)
        )
        distance = item.blob.distance(part)
        inside = np.clip(0.5 - distance, 0, 1)
        view = image[where]
        view += inside * (item.grey - view)
        view += item.rim * np.exp(-((distance - 1) ** 2))
        medium[where] &= distance > 2.5

    def _draw_distractors(self) -> list[Distractor]:
        rng = self.spec.rng("distractors")
        items = []
        for _ in range(self.spec.scene.distractors):
            bubble = rng.random() < 0.5
            radius = self.side * (rng.uniform(0.015, 0.05) if bubble else rng.uniform(0.008, 0.022))
            reach = 0.40 * self.side * np.sqrt(rng.random())
            angle = rng.uniform(0, 2 * np.pi)
            z = rng.uniform(0, self.shape[0] - 1)
            yx = self.middle[1:] + reach * np.array([np.sin(angle), np.cos(angle)])
            if self.tube is not None:
                away = yx - self.middle[1:]
                axis = self.tube.axis(np.array([z]), self.middle[0])[0]
                yx = axis + away * (self.tube.inner - radius - 2) / (0.40 * self.side)
            radii = np.full(3, radius) if bubble else radius * rng.uniform(0.6, 1.4, 3)
            blob = Blob(
                centre=np.array([z, *yx]),
                radii=np.maximum(radii, 0.9),
                rotation=random_rotation(rng),
            )
            items.append(
                Distractor(
                    blob=blob,
                    grey=AIR if bubble else float(rng.uniform(1.0, 2.2)),
                    rim=0.3 if bubble else 0.0,
                )
            )
        return items

    def _draw_sources(self) -> list[tuple[Vector, float, Vector]]:
        """Streak sources: place (z, y, x), height in z and the phases of their rays."""
        if self.spec.scene.streaks == 0:
            return []
        rng = self.spec.rng("streaks")
        sources = []
        for _ in range(int(rng.integers(1, 3))):
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.44) * self.side
            yx = self.middle[1:] + far * np.array([np.sin(angle), np.cos(angle)])
            z = rng.uniform(0.1, 0.9) * self.shape[0]
            height = rng.uniform(0.02, 0.05) * self.shape[0] + 1
            sources.append((np.array([z, *yx]), float(height), rng.uniform(0, 2 * np.pi, 5)))
        return sources

    def add_artefacts(self, image: Floats, slab: Box) -> None:
        """Cupping, rings and streaks, added in place to the slices of `slab`."""
        scene = self.spec.scene
        reach = CIRCLE_RADIUS * self.side
        if scene.cupping:
            image += np.float32(scene.cupping) * ((self._radius / reach) ** 2 - 1).clip(max=1)
        heights = np.arange(slab.start[0], slab.stop[0], dtype=float)
        for i, z in enumerate(heights):
            if scene.rings:
                image[i] += self._ring_slice(z) * np.float32(scene.rings)
            for place, height, phases in self._sources:
                weight = float(np.exp(-(((z - place[0]) / height) ** 2)))
                if weight > 1e-3:
                    self._add_streaks(image[i], place, weight * scene.streaks, phases)

    def _ring_slice(self, z: float) -> Floats:
        """Rings of one slice: narrow steps over the radius that fade in and out along z."""
        phase = 2 * np.pi * z / self.shape[0]
        steady, first, second = self._rings
        profile = 1.1 * steady + 0.8 * (first * np.cos(phase) + second * np.sin(phase))
        whole = self._radius.astype(np.intp)
        part = self._radius - whole
        rings: Floats = (profile[whole] * (1 - part) + profile[whole + 1] * part).astype(np.float32)
        return rings

    def _add_streaks(self, plane: Floats, place: Vector, weight: float, phases: Vector) -> None:
        dy, dx = self._y - np.float32(place[1]), self._x - np.float32(place[2])
        r = np.hypot(dy, dx)
        angle = np.arctan2(dy, dx)
        rays = sum(np.cos((6 * k + 7) * angle + phase) for k, phase in enumerate(phases))
        reach = CIRCLE_RADIUS * self.side
        plane += np.float32(weight) * (rays * np.sqrt(reach / (r + 0.1 * reach))).astype(np.float32)
        speck = max(0.012 * self.side, 0.8)
        plane += np.float32(20 * weight) * np.exp(-((r / speck) ** 2)).astype(np.float32)
