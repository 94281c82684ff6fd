"""Difficulty presets: named scenes from clear to hard."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, get_args

from ctray.core.errors import ConfigError
from ctray.phantom.spec import Container, PhantomSpec, SceneSpec

Difficulty = Literal["easy", "paper", "hard"]


def preset(
    difficulty: Difficulty, *, seed: int = 0, index: int = 0, **overrides: Any
) -> PhantomSpec:
    """Spec of phantom `index` of an archive of one difficulty.

    Parameters
    ----------
    difficulty
        ``easy``: sample clearly brighter than the medium, little noise, no container.
        ``paper``: as in the paper's scans, a centred container or the reconstruction circle
        alone, noise at three quarters of the sample's contrast, small artefacts.
        ``hard``: an off-centre, tilted, bright container, equal mean grey value of sample and
        medium, the same noise, artefacts and distractors.
    seed, index
        As in `PhantomSpec`.
    **overrides
        Fields of `PhantomSpec` or `SceneSpec` that replace the preset's.

    Raises
    ------
    ConfigError
        If the difficulty or an override is unknown, or a value is out of range.
    """
    if difficulty not in get_args(Difficulty):
        known = ", ".join(get_args(Difficulty))
        raise ConfigError(f"phantom difficulty {difficulty!r} is unknown; use one of {known}")
    base = PhantomSpec(seed=seed, index=index)
    scene = _scene_options(difficulty, base)
    own: dict[str, Any] = {}
    scene_names = {f.name for f in fields(SceneSpec)}
    own_names = {f.name for f in fields(PhantomSpec)} - {"scene"}
    for name, value in overrides.items():
        if name in scene_names:
            scene[name] = value
        elif name in own_names:
            own[name] = value
        else:
            known = ", ".join(sorted(scene_names | own_names))
            raise ConfigError(f"phantom option {name!r} is unknown; use one of {known}")
    return PhantomSpec(seed=seed, index=index, scene=SceneSpec(**scene), **own)


def _scene_options(difficulty: Difficulty, base: PhantomSpec) -> dict[str, Any]:
    rng = base.rng("preset")
    if difficulty == "easy":
        return {"medium_contrast": 1.0, "noise": 0.1}
    if difficulty == "paper":
        container: Container = "centred" if rng.random() < 0.5 else "none"
        return {
            "medium_contrast": 1.0,
            "noise": 0.75,
            "container": container,
            "rings": 0.05,
            "cupping": 0.1,
        }
    return {
        "medium_contrast": 0.0,
        "noise": 0.75,
        "container": "tilted",
        "rings": 0.1,
        "cupping": 0.15,
        "distractors": 6,
        "streaks": 0.1,
    }
