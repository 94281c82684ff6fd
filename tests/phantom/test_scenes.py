"""The benchmark's scenes, and that no phantom serves two purposes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.core.errors import ConfigError
from ctray.phantom import SceneSpec
from ctray.phantom.scenes import (
    FAMILIES,
    PURPOSES,
    REAL_SCENE,
    SCENES,
    benchmark_seed,
    benchmark_spec,
    scans_for,
    volume_id,
)

SIZE = 32
GROUPS = st.tuples(
    st.sampled_from([*FAMILIES, "heads-noisy", "hybrid"]), st.sampled_from([*SCENES, REAL_SCENE])
)


@given(st.permutations(PURPOSES), GROUPS, GROUPS)
def test_seeds_of_two_purposes_never_meet(
    purposes: list[str], one: tuple[str, str], other: tuple[str, str]
) -> None:
    first, second, _ = purposes
    assert benchmark_seed(first, *one) != benchmark_seed(second, *other)  # type: ignore[arg-type]


def test_every_group_has_a_seed_of_its_own() -> None:
    groups = list(itertools.product(PURPOSES, FAMILIES, SCENES))
    groups += [(p, f, REAL_SCENE) for p in PURPOSES for f in ("heads-noisy", "hybrid")]
    seeds = [benchmark_seed(*group) for group in groups]
    assert len(set(seeds)) == len(seeds)
    # Numbers are for good: figures that were published must come out again.
    assert benchmark_seed("tuning", "embryo", "easy") == 10_101
    assert benchmark_seed("final", "multi", "empty-hard") == 70_317
    assert benchmark_seed("calibration", "hybrid", REAL_SCENE) == 20_500


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (("testing", "fish", "easy"), "'testing'"),
        (("final", "whale", "easy"), "'whale'"),
        (("final", "fish", "foggy"), "'foggy'"),
    ],
)
def test_unknown_names_are_refused(names: tuple[str, str, str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        benchmark_seed(*names)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=word):
        benchmark_spec(*names, 0, SIZE)  # type: ignore[arg-type]


def test_single_difficulties_change_one_thing_of_the_easy_scene() -> None:
    easy = SceneSpec(medium_contrast=1.0, noise=0.1)
    single = [s for s in SCENES.values() if s.difficulty == "easy" and s.name != "easy"]
    for scene in single:
        spec = benchmark_spec("tuning", "embryo", scene.name, 0, SIZE).scene
        fields = SceneSpec.__dataclass_fields__
        changed = [n for n in fields if getattr(spec, n) != getattr(easy, n)]
        assert changed == list(scene.changes), scene.name
    changes = {name for scene in single for name in scene.changes}
    assert changes == {
        *("noise", "rings", "cupping", "distractors", "streaks"),
        *("touches_border", "container", "medium_contrast"),
    }


def test_specs_are_those_of_their_group() -> None:
    spec = benchmark_spec("final", "fish", "empty-hard", 3, SIZE)
    assert (spec.kind, spec.seed, spec.index, spec.shape) == ("fish", 70_217, 3, (SIZE,) * 3)
    assert spec.scene.empty
    assert spec.scene.container == "tilted"
    names = [volume_id(f, s, i) for f in FAMILIES for s in SCENES for i in range(2)]
    assert len(set(names)) == len(names)
    assert names[0] == "embryo-easy-0000"


def test_changed_scans_are_for_tuning_or_for_final_figures() -> None:
    names = [f"scan-{i:02d}" for i in np.random.default_rng(0).permutation(13)]
    tuning, final = scans_for("tuning", names), scans_for("final", names)
    assert tuning == sorted(names)[:6]
    assert sorted(tuning + final) == sorted(names)
    assert scans_for("calibration", names) == tuning
