"""Fitting the inside of a wall: against walls whose place is known to parts of a voxel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.wall_fit import fit_inside

SIDE, HEIGHT = 64, 24
THICKNESS = 1.5


def tube(
    inside: Cylinder, *, noise: float = 0.0, seed: int = 0, body: float = 0.0
) -> npt.NDArray[np.float32]:
    """Wall of grey value 160 in 100, air of 60 beyond; `body` is a quarter that touches it."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    planes = []
    for z in range(HEIGHT):
        cy, cx = inside.centers(z)
        distance = np.hypot(y - cy, x - cx)
        outside = np.clip(distance - inside.radius - THICKNESS + 0.5, 0, 1)
        wall = np.clip(distance - inside.radius + 0.5, 0, 1) - outside
        medium = 100 + body * ((y > cy) & (x > cx))
        planes.append(medium + wall * (160 - medium) + outside * (60 - medium))
    drawn = np.random.default_rng(seed).normal(0, noise, (HEIGHT, SIDE, SIDE)) if noise else 0.0
    return (np.stack(planes) + drawn).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    center=st.tuples(st.floats(29, 34), st.floats(29, 34)),
    lean=st.tuples(st.floats(-0.08, 0.08), st.floats(-0.08, 0.08)),
    radius=st.floats(18, 26),
    off=st.tuples(*[st.floats(-1, 1)] * 3),
    body=st.sampled_from([0.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_wall_is_found_to_a_quarter_of_a_voxel(
    center: tuple[float, float],
    lean: tuple[float, float],
    radius: float,
    off: tuple[float, float, float],
    body: float,
    seed: int,
) -> None:
    wall = Cylinder(
        center_y=center[0], center_x=center[1], slope_y=lean[0], slope_x=lean[1], radius=radius
    )
    near = replace(
        wall, center_y=center[0] + off[0], center_x=center[1] + off[1], radius=radius + off[2]
    )
    found = fit_inside(tube(wall, noise=8, seed=seed, body=body), near)
    assert found is not None
    for z in (0, HEIGHT - 1):
        np.testing.assert_allclose(found.centers(z), wall.centers(z), rtol=0, atol=0.25)
    assert found.radius == pytest.approx(radius, abs=0.4)


def test_no_wall_gives_no_fit() -> None:
    noise = np.random.default_rng(0).normal(100, 10, (HEIGHT, SIDE, SIDE)).astype(np.float32)
    near = Cylinder(center_y=31.5, center_x=31.5, radius=22)
    assert fit_inside(noise, near) is None


@pytest.mark.parametrize("radius", [1.0, 40.0, 90.0])
def test_wall_out_of_view_gives_no_fit(radius: float) -> None:
    volume = tube(Cylinder(center_y=31.5, center_x=31.5, radius=22), noise=1)
    near = Cylinder(center_y=31.5, center_x=31.5, radius=radius)
    assert fit_inside(volume, near) is None
