"""From a spec to voxels: specimens painted into the scene, and the exact truth beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Box, Triple
from ctray.phantom.fields import Floats, SmoothField, local_slices
from ctray.phantom.placement import Placed, place
from ctray.phantom.scene import Bools, Scene
from ctray.phantom.spec import PhantomSpec
from ctray.phantom.tube import Tube, choose_tube

_SLAB_VOXELS = 1 << 22
_FAR = np.float32(1e3)
_FILL_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A synthetic scan and its truth; every array has the shape (z, y, x) of the spec.

    Parameters
    ----------
    volume
        Grey values, uint8 or uint16; 0 outside the reconstruction circle.
    mask
        Sample, bool: fins and tail included.
    medium
        Voxels of plain embedding medium, bool: inside circle and container, no distractor.
    labels
        Labelled organs, uint8; for a fish 1 eye, 2 lens, 3 nerve, else empty.
    specimens
        Number of the specimen, uint8, counted from 1; 0 is no sample.
    boxes
        Tight box of each specimen.
    window
        Contrast units at grey value 1 and at the largest grey value.
    spec
        What was asked for.
    """

    volume: npt.NDArray[Any]
    mask: Bools
    medium: Bools
    labels: npt.NDArray[np.uint8]
    specimens: npt.NDArray[np.uint8]
    boxes: list[Box]
    window: tuple[float, float]
    spec: PhantomSpec

    @property
    def box(self) -> Box | None:
        """Tight box of all of the sample; None where there is none."""
        if not self.boxes:
            return None
        union = self.boxes[0]
        for other in self.boxes[1:]:
            union = union.union(other)
        return union


@dataclass(frozen=True, kw_only=True)
class Painted:
    """One specimen in the part of the volume `box`: coverage 0 to 1, structure, labels.

    The structure is in contrast units and has a mean of 0 over the specimen; the scene's
    `medium_contrast` is added to it.
    """

    box: Box
    coverage: Floats
    structure: Floats
    labels: npt.NDArray[np.uint8]

    @property
    def mask(self) -> Bools:
        """Voxels that are more than half specimen."""
        mask: Bools = self.coverage > 0.5
        return mask

    def moved(self, shift_z: int, shape: Triple) -> Painted:
        """Return what stays inside `shape` when it is moved along z by whole voxels."""
        low, high = self.box.start[0] + shift_z, self.box.stop[0] + shift_z
        cut = slice(max(-low, 0), self.box.shape[0] - max(high - shape[0], 0))
        rows = [max(low, 0), min(high, shape[0])]
        return Painted(
            box=Box.from_ranges([rows, *self.box.ranges[1:]]),
            coverage=self.coverage[cut],
            structure=self.structure[cut],
            labels=self.labels[cut],
        )


def make_phantom(spec: PhantomSpec) -> Phantom:
    """Render a phantom; a pure function of its spec.

    Raises
    ------
    ConfigError
        If a specimen of the asked fill does not fit into the field of view.
    """
    group, shift_z = _placed_to_fill(spec)
    tube = choose_tube(spec, np.concatenate([p.points() for p in group]), shift_z)
    painted = [_paint(spec, p, i).moved(shift_z, spec.shape) for i, p in enumerate(group)]
    return render(spec, tube, [] if spec.scene.empty else painted)


def render(spec: PhantomSpec, tube: Tube | None, painted: list[Painted]) -> Phantom:
    """Render the scene of `spec` around specimens that are painted already."""
    scene = Scene(spec, tube)
    specimens = np.zeros(spec.shape, np.uint8)
    labels = np.zeros(spec.shape, np.uint8)
    boxes = []
    for i, item in enumerate(painted, start=1):
        where = item.box.slices
        specimens[where][item.mask] = i
        labels[where][item.mask] = item.labels[item.mask]
        tight = tight_box(item.mask)
        assert tight is not None, "a placed specimen has voxels"
        boxes.append(tight.shift(item.box.start))
    mask = specimens > 0
    image, medium = _compose(scene, painted, mask)
    window = _window(spec)
    volume = _to_grey(scene, image, window)
    return Phantom(
        volume=volume, mask=mask, medium=medium, labels=labels, specimens=specimens,
        boxes=boxes, window=window, spec=spec,
    )  # fmt: skip


def tight_box(mask: Bools) -> Box | None:
    """Smallest box around the True voxels of `mask` (z, y, x); None if there are none."""
    ranges = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if len(hits) == 0:
            return None
        ranges.append((int(hits[0]), int(hits[-1]) + 1))
    return Box.from_ranges(ranges)


def _placed_to_fill(spec: PhantomSpec) -> tuple[tuple[Placed, ...], int]:
    """Specimens inside the volume, their rendered box of the asked fill, and their shift in z."""
    correction = 1.0
    low, high = spec.fill
    for _ in range(_FILL_ROUNDS):
        group = place(spec, correction=correction)
        boxes = [_surface(spec, p)[0] for p in group]
        union = boxes[0]
        for box in boxes[1:]:
            union = union.union(box)
        fill = union.num_voxels / np.prod(spec.shape)
        if low <= fill <= high:
            break
        correction *= float((low + high) / 2 / fill) ** 0.8
    return group, _shift_out(spec, boxes, union) if spec.scene.touches_border else 0


def _shift_out(spec: PhantomSpec, boxes: list[Box], union: Box) -> int:
    """Voxels along z that put a part of an outermost specimen, never all of it, outside."""
    rng = spec.rng("border")
    out = int(np.ceil(rng.uniform(0.15, 0.3) * min(box.shape[0] for box in boxes)))
    upwards = spec.shape[0] - union.stop[0] + out
    return -union.start[0] - out if rng.random() < 0.5 else upwards


def _surface(spec: PhantomSpec, placed: Placed) -> tuple[Box, Box, Floats]:
    """Tight box, padded box and signed distance (voxels, negative inside) in the padded box."""
    whole = Box.whole(spec.shape)
    parts = [p for p in placed.parts if p.role != "organ"]
    bounds = [b for p in parts if (b := p.blob.bounds(2.0, whole)) is not None]
    padded = bounds[0]
    for box in bounds[1:]:
        padded = padded.union(box)
    distance = np.full(padded.shape, _FAR, np.float32)
    for part in parts:
        blend = (0.035 if part.role == "body" else 0.012) * placed.scale
        local = part.blob.bounds(blend + 2.0, padded)
        if local is None:
            continue
        view = distance[local_slices(local, padded.start)]
        own = part.blob.distance(local)
        # Polynomial smooth minimum: parts grow together instead of meeting in a crease.
        near = np.clip(blend - np.abs(view - own), 0, None)
        np.minimum(view, own, out=view)
        view -= near * near / np.float32(4 * blend)
    tight = tight_box(distance < 0)
    assert tight is not None, "a placed specimen has voxels"
    return tight.shift(padded.start), padded, distance


def _paint(spec: PhantomSpec, placed: Placed, number: int) -> Painted:
    """Structure with mean 0 over the specimen: tissue texture, skin and organs."""
    _, box, distance = _surface(spec, placed)
    rng = spec.rng("texture", number)
    side = min(spec.shape)
    structure = np.zeros(box.shape, np.float32)
    for fraction, weight in ((0.12, 0.5), (0.06, 0.5), (0.03, 0.45)):
        field = SmoothField.draw(rng, box.shape, max(fraction * side, 1.6))
        structure += np.float32(weight) * field.values(Box.whole(box.shape))
    skin = max(0.012 * placed.scale, 0.9)
    structure += np.float32(rng.uniform(0.8, 1.4)) * np.exp(-((distance / skin) ** 2))
    labels = np.zeros(box.shape, np.uint8)
    for part in placed.parts:
        if part.role != "organ":
            continue
        soft = max(part.edge * float(part.blob.radii.min()), 0.5)
        local = part.blob.bounds(2 * soft, box)
        if local is None:
            continue
        where = local_slices(local, box.start)
        own = part.blob.distance(local)
        share = np.clip(0.5 - own / np.float32(2 * soft), 0, 1)
        view = structure[where]
        view += share * (np.float32(part.grey) - np.float32(0.6) * view)
        if part.label:
            labels[where][(own < 0) & (distance[where] < 0)] = part.label
    coverage = np.clip(0.5 - distance, 0, 1)
    values = structure[coverage > 0.5]
    strength = rng.uniform(0.45, 0.55)
    structure -= values.mean()
    structure *= np.float32(strength / values.std())
    np.clip(structure, -1.8, 1.8, out=structure)
    return Painted(box=box, coverage=coverage, structure=structure, labels=labels)


def _slabs(scene: Scene) -> Iterator[Box]:
    thick = max(1, _SLAB_VOXELS // (scene.shape[1] * scene.shape[2]))
    for start in range(0, scene.shape[0], thick):
        yield scene.slab(start, min(start + thick, scene.shape[0]))


def _compose(scene: Scene, painted: list[Painted], mask: Bools) -> tuple[Floats, Bools]:
    """Noiseless image in contrast units, mean of medium 0, mean of sample as asked."""
    image = np.empty(scene.shape, np.float32)
    medium = np.empty(scene.shape, bool)
    for slab in _slabs(scene):
        image[slab.slices], medium[slab.slices] = scene.surroundings(slab)
    medium &= ~mask
    for item in painted:
        view = image[item.box.slices]
        view += item.coverage * (item.structure + scene.spec.scene.medium_contrast - view)
    for slab in _slabs(scene):
        scene.add_artefacts(image[slab.slices], slab)
    if painted:
        _set_contrast(image, painted, mask, medium, scene.spec.scene.medium_contrast)
    if medium.any():
        image -= np.float32(image.mean(where=medium, dtype=np.float64))
    return image, medium


def _set_contrast(
    image: Floats, painted: list[Painted], mask: Bools, medium: Bools, contrast: float
) -> None:
    """Shift the sample so that its mean less the medium's is `contrast`.

    Artefacts are in the image already: what a reader measures in the volume is what was asked.
    The shift follows the coverage, so a soft edge stays soft; its share in the medium counts.
    """
    coverage = np.zeros(image.shape, np.float32)
    for item in painted:
        np.maximum(coverage[item.box.slices], item.coverage, out=coverage[item.box.slices])

    def step(of: Floats) -> float:
        inside = float(of.mean(where=mask, dtype=np.float64))
        return inside - float(of.mean(where=medium, dtype=np.float64))

    image += np.float32((contrast - step(image)) / step(coverage)) * coverage


def _window(spec: PhantomSpec) -> tuple[float, float]:
    """Contrast units that the grey values span; the same for every phantom of like options."""
    spread = 4 * spec.scene.noise
    contrast = spec.scene.medium_contrast
    return (min(contrast, 0.0) - 2.1 - spread, max(contrast, 0.0) + 2.1 + spread)


def _to_grey(scene: Scene, image: Floats, window: tuple[float, float]) -> npt.NDArray[Any]:
    """Add the photon noise and store grey values; 0 is kept for outside the circle."""
    spec = scene.spec
    rng = spec.rng("noise")
    dtype = np.dtype(spec.dtype)
    top = np.float32(np.iinfo(dtype).max)
    low, high = window
    volume = np.empty(scene.shape, dtype)
    circle = scene.circle()
    for slab in _slabs(scene):
        part = image[slab.slices].copy()
        if spec.scene.noise:
            part += np.float32(spec.scene.noise) * rng.standard_normal(part.shape, np.float32)
        part -= np.float32(low)
        part *= (top - 1) / np.float32(high - low)
        part += 1
        np.clip(np.rint(part, out=part), 1, top, out=part)
        part *= circle
        volume[slab.slices] = part.astype(dtype)
    return volume
