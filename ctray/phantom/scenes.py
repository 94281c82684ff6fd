"""The benchmark's scenes and families by name, and the seeds of its phantoms.

Seeds come of `benchmark_seed` alone: what is tuned on, what margins are calibrated on, and what
final figures are measured on are different phantoms by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ctray.core.errors import ConfigError
from ctray.core.geometry import Triple
from ctray.phantom.presets import Difficulty, preset
from ctray.phantom.spec import Kind, PhantomSpec

Purpose = Literal["tuning", "calibration", "final"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
FAMILIES: tuple[Kind, ...] = get_args(Kind)
# Archives that are made of real scans.
REAL_FAMILIES = ("heads", "heads-noisy", "hybrid")

_SEEDS_PER_PURPOSE = 10_000
_SEEDS_PER_FAMILY = 100
# Numbers are part of the seeds: new names get new numbers, and no number is given twice.
# 3 to 6 were final until figures of them had been looked at while the method still changed.
_PURPOSE_NUMBERS: dict[Purpose, int] = {"tuning": 1, "calibration": 2, "final": 7}
_FAMILY_NUMBERS = {"embryo": 1, "fish": 2, "multi": 3, "heads-noisy": 4, "hybrid": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkScene:
    """What surrounds the specimens of one group of the benchmark.

    Parameters
    ----------
    name, number
        As in tables, and as in seeds.
    difficulty
        Preset that it starts from, see `ctray.phantom.preset`.
    changes
        Fields of `SceneSpec` that replace the preset's.
    """

    name: str
    number: int
    difficulty: Difficulty
    changes: Mapping[str, Any] = field(default_factory=dict)


def _scene(name: str, number: int, difficulty: Difficulty, **changes: Any) -> BenchmarkScene:
    return BenchmarkScene(name=name, number=number, difficulty=difficulty, changes=changes)


SCENES: dict[str, BenchmarkScene] = {
    scene.name: scene
    for scene in (
        _scene("easy", 1, "easy"),
        _scene("paper", 2, "paper"),
        _scene("paper-equal", 3, "paper", medium_contrast=0.0),
        _scene("hard", 4, "hard"),
        _scene("hard-bright", 5, "hard", medium_contrast=1.0),
        # One difficulty at a time, at its strength in `hard`.
        _scene("noise", 6, "easy", noise=0.75),
        _scene("rings", 7, "easy", rings=0.1),
        _scene("cupping", 8, "easy", cupping=0.15),
        _scene("distractors", 9, "easy", distractors=6),
        _scene("streaks", 10, "easy", streaks=0.1),
        _scene("border", 11, "easy", touches_border=True),
        _scene("centred", 12, "easy", container="centred"),
        _scene("offset", 13, "easy", container="offset"),
        _scene("tilted", 14, "easy", container="tilted"),
        _scene("equal", 15, "easy", medium_contrast=0.0),
        _scene("empty-paper", 16, "paper", empty=True),
        _scene("empty-hard", 17, "hard", empty=True),
    )
}
# What the scans of `REAL_FAMILIES` are called in tables; 0 as a number of seeds.
REAL_SCENE = "real"


def benchmark_seed(purpose: Purpose, family: str, scene: str) -> int:
    """Seed of a group of phantoms: 10,000 times the purpose, 100 times the family, the scene.

    Parameters
    ----------
    purpose
        ``tuning`` (1): settings are chosen on these. ``calibration`` (2): margins are fitted to
        these. ``final`` (7): figures that are published.
    family
        One of `FAMILIES`, or ``heads-noisy`` or ``hybrid``.
    scene
        One of `SCENES`, or ``real``.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    numbers = {name: s.number for name, s in SCENES.items()} | {REAL_SCENE: 0}
    for what, name, known in (
        ("purpose", purpose, tuple(_PURPOSE_NUMBERS)),
        ("family", family, tuple(_FAMILY_NUMBERS)),
        ("scene", scene, tuple(numbers)),
    ):
        _check_known(what, name, known)
    first = _SEEDS_PER_PURPOSE * _PURPOSE_NUMBERS[purpose]
    return first + _SEEDS_PER_FAMILY * _FAMILY_NUMBERS[family] + numbers[scene]


def benchmark_spec(
    purpose: Purpose, family: Kind, scene: str, index: int, size: int | Triple
) -> PhantomSpec:
    """Spec of phantom `index` of a group.

    Raises
    ------
    ConfigError
        If a name is unknown or a value out of range.
    """
    _check_known("family", family, FAMILIES)
    _check_known("scene", scene, tuple(SCENES))
    seed = benchmark_seed(purpose, family, scene)
    chosen = SCENES[scene]
    return preset(
        chosen.difficulty, seed=seed, index=index, size=size, kind=family, **chosen.changes
    )


def volume_id(family: str, scene: str, index: int) -> str:
    """Name of a phantom in a mixed archive, ``<family>-<scene>-<index>``."""
    return f"{family}-{scene}-{index:04d}"


def scans_for(purpose: Purpose, names: list[str]) -> list[str]:
    """Real scans whose changed versions a purpose may use.

    Of the names in sorted order the first half, rounded down, is for tuning and calibration (of
    other seeds), the rest for the final figures: 6 and 7 of 13.
    """
    _check_known("purpose", purpose, PURPOSES)
    ordered = sorted(names)
    half = len(ordered) // 2
    return ordered[half:] if purpose == "final" else ordered[:half]


def _check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(f"benchmark {what} {name!r} is unknown; use one of {', '.join(known)}")
