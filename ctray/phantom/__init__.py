"""Synthetic specimens with exact truth, from NumPy and SciPy alone."""

from ctray.phantom.presets import Difficulty, preset
from ctray.phantom.render import Phantom, make_phantom
from ctray.phantom.spec import Container, Kind, PhantomSpec, SceneSpec

__all__ = [
    "Container",
    "Difficulty",
    "Kind",
    "Phantom",
    "PhantomSpec",
    "SceneSpec",
    "make_phantom",
    "preset",
]
