"""Where specimens and containers lie: scale, pose and shift in voxels of the volume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ctray.core.errors import ConfigError
from ctray.phantom.fields import Vector, random_rotation, sphere_directions
from ctray.phantom.spec import PhantomSpec
from ctray.phantom.specimens import Part, blob_cluster, embryo, fish, stouter
from ctray.phantom.tube import find_tube

# Fractions of the smaller of the sides y and x: the specimen stays inside a radius that leaves
# room for a container, and no part of it is thinner than voxels can show.
SPECIMEN_RADIUS = 0.38
MIN_RADIUS = 0.02
# A specimen is at most 0.96 of z less these voxels; a fish aims at a little less than that.
_MARGIN = 2
_MAX_SPAN = 0.95
_TRIES = 200

Parts = tuple[Part, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A specimen in voxels: posed parts, and the scale (voxels per specimen length)."""

    parts: tuple[Part, ...]
    scale: float

    def points(self) -> Vector:
        """Points (n, 3) on the surfaces of body and fins."""
        directions = sphere_directions(48)
        return np.concatenate([p.blob.surface(directions) for p in self.parts if p.role != "organ"])

    def shifted(self, shift: Vector) -> Placed:
        """Return the specimen moved by `shift` (3,) voxels."""
        moved = [replace(p, blob=replace(p.blob, centre=p.blob.centre + shift)) for p in self.parts]
        return replace(self, parts=tuple(moved))


def pose(parts: tuple[Part, ...], rotation: Vector, scale: float, side: int) -> Placed:
    """Parts turned and scaled about the origin; thin ones thickened to what voxels can show."""
    thin = max(MIN_RADIUS * side, 0.8)
    posed = [
        replace(
            p,
            blob=p.blob.posed(rotation, scale, np.zeros(3), 0.7 if p.role == "organ" else thin),
        )
        for p in parts
    ]
    return Placed(parts=tuple(posed), scale=scale)


def place(spec: PhantomSpec, *, correction: float = 1.0) -> tuple[Placed, ...]:
    """Specimens of `spec`, whole and inside the field of view, in voxels.

    `correction` multiplies the volume of the box that is aimed at.

    Raises
    ------
    ConfigError
        If a box of the asked fill does not fit into the field of view.
    """
    low, high = spec.fill
    inset = 0.1 * (high - low)
    target = spec.rng("place").uniform(low + inset, high - inset) * correction
    bodies = _draw_bodies(spec)
    for attempt in range(_TRIES):
        group = _attempt(spec, bodies, attempt, target)
        if group is not None:
            return group
    # The drawn fill can be too much for every pose, or leave no tube around any place off the
    # middle. What the spec allows is met all the same: ever nearer to the middle and ever smaller.
    # A correction upwards may ask for more than has room, so it does not raise the smallest.
    smallest = (low + inset) * min(correction, 1.0)
    snug = replace(spec, span=min(spec.span, _MAX_SPAN - _MARGIN / spec.shape[0]))
    for attempt in range(_TRIES):
        # The second half tries poses alone, all of them in the middle and as small as may be.
        reach = max(1 - 2 * attempt / _TRIES, 0.0)
        aim = smallest + (target - smallest) * reach
        group = _attempt(snug, bodies, _TRIES + attempt, aim, reach=reach)
        if group is not None:
            return group
    raise ConfigError(
        f"phantom fill {spec.fill} does not fit into shape {spec.shape} for kind {spec.kind!r}; "
        "choose a smaller fill or a wider volume, or for a fish a longer span"
    )


def _attempt(
    spec: PhantomSpec, bodies: list[Parts], attempt: int, target: float, *, reach: float = 1.0
) -> tuple[Placed, ...] | None:
    """One pose and place of the specimens; None where they or a tube around them do not fit.

    `reach` is the part of the room around the middle that the place is drawn from.
    """
    group = _candidate(spec, bodies, attempt, target)
    if not _fits(spec, group):
        return None
    group = _centred(spec, group, spec.rng("shift", attempt), reach)
    # Asked for whatever the scene has, so that the container changes no specimen.
    points = _all_points(group)
    if all(find_tube(spec, points, tilted=t) is not None for t in (True, False)):
        return group
    return None


def _draw_bodies(spec: PhantomSpec) -> list[Parts]:
    """Specimens in units of their own length, before they are placed."""
    if spec.kind == "fish":
        return [fish(spec.rng("specimen"))]
    if spec.kind == "embryo":
        return [embryo(spec.rng("specimen"))]
    count = spec.specimens or int(spec.rng("specimens").integers(2, 5))
    streams = [spec.rng("specimen", i) for i in range(count)]
    return [blob_cluster(rng) if rng.random() < 0.4 else embryo(rng) for rng in streams]


def _candidate(
    spec: PhantomSpec, bodies: list[Parts], attempt: int, target: float
) -> tuple[Placed, ...]:
    rng = spec.rng("pose", attempt)
    if spec.kind == "fish":
        return (_fish_candidate(spec, bodies[0], rng, target),)
    if spec.kind == "embryo":
        return (_scaled(spec, bodies[0], random_rotation(rng), target),)
    # Ever smaller specimens, so that a crowded volume is not tried in vain.
    return _multi_candidate(spec, bodies, rng, target * 0.95 ** (attempt % 20))


def _all_points(group: tuple[Placed, ...]) -> Vector:
    return np.concatenate([p.points() for p in group])


def _box_volume(points: Vector) -> float:
    return float(np.prod(np.ptp(points, axis=0)))


def _scaled(spec: PhantomSpec, parts: tuple[Part, ...], rotation: Vector, target: float) -> Placed:
    """Scale at which the box takes `target` of the volume (thin parts do not scale)."""
    wanted = target * np.prod(spec.shape)
    scale = float(min(spec.shape))
    for _ in range(6):
        placed = pose(parts, rotation, scale, min(spec.shape))
        scale *= float((wanted / _box_volume(placed.points())) ** (1 / 3))
    return pose(parts, rotation, scale, min(spec.shape))


def _fish_candidate(
    spec: PhantomSpec, parts: Parts, rng: np.random.Generator, target: float
) -> Placed:
    """Length from the span, girth from the fill."""
    tilt = np.deg2rad(rng.uniform(0, spec.tilt_degrees))
    towards, turn = rng.uniform(0, 2 * np.pi, 2)
    if not spec.random_turn:
        turn = 0.0
    lean = _turn_z(towards) @ _turn_y(tilt) @ _turn_z(-towards)
    rotation = lean @ _turn_z(turn) @ _turn_y(0.0 if spec.head_first else np.pi)
    length, girth = spec.span * spec.shape[0], 1.0
    wanted = target * np.prod(spec.shape)
    scale, side = length, min(spec.shape)
    placed = pose(parts, rotation, scale, side)
    for _ in range(8):
        points = placed.points()
        scale *= length / float(np.ptp(points[:, 0]))
        girth *= float((wanted / _box_volume(points)) ** 0.5)
        girth = float(np.clip(girth, 0.4, 2.5))
        placed = pose(stouter(parts, girth), rotation, scale, side)
    return placed


def _turn_z(angle: float) -> Vector:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _turn_y(angle: float) -> Vector:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _multi_candidate(
    spec: PhantomSpec, bodies: list[Parts], rng: np.random.Generator, target: float
) -> tuple[Placed, ...]:
    """Specimens apart from each other: their boxes leave a gap along at least one axis."""
    side = min(spec.shape[1:])
    size = (target * np.prod(spec.shape)) ** (1 / 3) * rng.uniform(0.55, 0.8)
    tall = rng.uniform(0.6, 0.95) * spec.shape[0]
    free = rng.uniform(0.85, 1.0) * SPECIMEN_RADIUS * side
    group: list[Placed] = []
    boxes: list[Vector] = []
    for parts in bodies:
        rotation = random_rotation(rng)
        points = pose(parts, rotation, size, side).points()
        scale = size * size * rng.uniform(0.85, 1.15) / float(np.ptp(points, axis=0).max())
        placed = pose(parts, rotation, scale, side)
        points = placed.points()
        spot = _free_spot(points, boxes, tall, free, 0.05 * side, rng)
        if spot is None:
            return ()
        group.append(placed.shifted(spot))
        boxes.append(_bounds(points + spot))
    return tuple(group)


def _free_spot(
    points: Vector,
    boxes: list[Vector],
    tall: float,
    free: float,
    gap: float,
    rng: np.random.Generator,
) -> Vector | None:
    """Shift of `points` to apart from the `boxes` by `gap`; None where no room was found.

    The room is a cylinder about the origin, `tall` high and of radius `free`.
    """
    centre, radius = enclosing_circle(points[:, 1:])
    own = _bounds(points)
    height = own[1, 0] - own[0, 0]
    for _ in range(100):
        # Towards the rim more often than not: in the middle one specimen fills the room.
        far = max(free - radius, 0.0) * rng.random() ** 0.3
        angle = rng.uniform(0, 2 * np.pi)
        z = rng.uniform(0, max(tall - height, 0.0)) - own[0, 0]
        yx = far * np.array([np.sin(angle), np.cos(angle)]) - centre
        shift = np.array([z, *yx])
        if all(_apart(own + shift, other, gap) for other in boxes):
            return shift
    return None


def _bounds(points: Vector) -> Vector:
    """Lowest and highest corner (2, 3) of `points` (n, 3)."""
    return np.stack([points.min(axis=0), points.max(axis=0)])


def _apart(a: Vector, b: Vector, gap: float) -> bool:
    """Whether boxes of corners (2, 3) leave `gap` voxels along an axis."""
    return bool(np.maximum(a[0] - b[1], b[0] - a[1]).max() >= gap)


def _fits(spec: PhantomSpec, group: tuple[Placed, ...]) -> bool:
    """Whether the group's box has the asked fill and the group fits the field of view."""
    if not group:
        return False
    points = _all_points(group)
    fill = _box_volume(points) / float(np.prod(spec.shape))
    low, high = spec.fill
    slack = 0.02 * high
    if not low - slack <= fill <= high + slack:
        return False
    if float(np.ptp(points[:, 0])) > 0.96 * spec.shape[0] - _MARGIN:
        return False
    return enclosing_circle(points[:, 1:])[1] <= SPECIMEN_RADIUS * min(spec.shape[1:])


def _centred(
    spec: PhantomSpec, group: tuple[Placed, ...], rng: np.random.Generator, reach: float
) -> tuple[Placed, ...]:
    """Group moved to a random place in the field of view that holds all of it."""
    points = _all_points(group)
    centre, radius = enclosing_circle(points[:, 1:])
    slack = SPECIMEN_RADIUS * min(spec.shape[1:]) - radius
    angle, far = rng.uniform(0, 2 * np.pi), slack * rng.random() ** 0.5 * reach
    low, high = points[:, 0].min(), points[:, 0].max()
    margin = 0.02 * spec.shape[0] + 1
    z = rng.uniform(margin, max(spec.shape[0] - 1 - margin - (high - low), margin))
    middle = (np.array(spec.shape) - 1) / 2
    if spec.kind == "fish":
        z = middle[0] - (high - low) / 2 + (z - middle[0] + (high - low) / 2) * 0.5
    shift = np.array(
        [
            z - low,
            middle[1] - centre[0] + far * np.sin(angle),
            middle[2] - centre[1] + far * np.cos(angle),
        ]
    )
    return tuple(p.shifted(shift) for p in group)


def enclosing_circle(points: Vector) -> tuple[Vector, float]:
    """Centre (2,) and radius of a circle around `points` (n, 2), within 1% of the smallest."""
    angles = np.arange(180) * (2 * np.pi / 180)
    # Only the outermost points matter: the farthest in each of many directions.
    outer = points[np.unique((points @ np.stack([np.cos(angles), np.sin(angles)])).argmax(axis=0))]
    centre = (points.max(axis=0) + points.min(axis=0)) / 2
    # Badoiu and Clarkson's iteration: step towards the farthest point, ever less.
    for i in range(1, 120):
        away = outer - centre
        centre = centre + away[np.argmax((away**2).sum(axis=1))] / (i + 1)
    return centre, float(np.sqrt(((points - centre) ** 2).sum(axis=1).max()))
