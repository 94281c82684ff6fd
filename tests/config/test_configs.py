"""The configurations of the repository load, and `run.yaml` is the whole truth about defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_yaml
import yaml

import ctray.benchmark.demo
from ctray.benchmark.demo import demo_config
from ctray.config import RunConfig, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_says_what_it_is_for(name: str) -> None:
    load_config(CONFIGS / name)
    assert (CONFIGS / name).read_text(encoding="utf-8").startswith("# ")


def test_the_expected_ones_are_there() -> None:
    expected = {
        "run",
        "demo",
        "benchmark",
        "archive",
        "pretrain",
        "localize",
        "rotation-paper",
        "rotation-long",
        "sorting-paper",
        "sorting-long",
    }
    assert {f"{name}.yaml" for name in expected} <= set(NAMES)


def test_run_yaml_names_every_key_with_its_default() -> None:
    path = CONFIGS / "run.yaml"
    assert load_config(path) == RunConfig()
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert _keys(written) == _keys(RunConfig().model_dump())


def test_run_yaml_has_the_descriptions_of_the_settings() -> None:
    path = CONFIGS / "run.yaml"
    text = path.read_text(encoding="utf-8")
    assert text == run_yaml.render(), f"{path} is out of date; run python tests/config/run_yaml.py"


def test_every_setting_is_described() -> None:
    before = ""
    for line in (CONFIGS / "run.yaml").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.strip().startswith("#"):
            assert before.strip().startswith("# "), f"{line!r} has no docstring in ctray/config"
        before = line


def test_paper_config_is_the_plain_form() -> None:
    config = load_config(CONFIGS / "rotation-paper.yaml")
    assert config.preprocess.working_size == 504
    assert {config.preprocess.circle, config.preprocess.container, config.preprocess.rings} == {
        "off"
    }
    encoder = config.encoder
    assert (encoder.name, encoder.output_stride, encoder.pool_grid) == ("resnet50", 32, 1)
    assert config.rotation.num_classes == 7
    assert config.rotation.drift == 0


def test_sorting_paper_config_is_the_plain_form() -> None:
    config = load_config(CONFIGS / "sorting-paper.yaml")
    encoder, sorting, uncertainty = config.encoder, config.sorting, config.uncertainty
    assert (encoder.name, encoder.output_stride, encoder.pool_grid) == ("resnet18", 32, 1)
    assert (sorting.num_slices, sorting.margin, sorting.sampling) == (12, 0.2, "uniform")
    assert (uncertainty.stride or encoder.output_stride, uncertainty.shifts) == (32, 1)
    assert (uncertainty.threshold, uncertainty.top_fraction) == ("top", 0.03)
    assert config.train.validation_fraction == 0.25


def test_demo_of_the_package_is_that_of_the_repository() -> None:
    packaged = Path(ctray.benchmark.demo.__file__).with_name("demo.yaml")
    assert packaged.read_bytes() == (CONFIGS / "demo.yaml").read_bytes()
    assert demo_config() == load_config(CONFIGS / "demo.yaml")


def test_benchmark_of_the_package_is_that_of_the_repository() -> None:
    packaged = Path(ctray.benchmark.demo.__file__).with_name("benchmark.yaml")
    assert packaged.read_bytes() == (CONFIGS / "benchmark.yaml").read_bytes()


def test_demo_settings_can_be_overridden() -> None:
    assert demo_config(("train.steps=7",)).train.steps == 7


@pytest.mark.parametrize("text", ["off", "'off'", "false"])
def test_a_switch_is_off_however_yaml_reads_it(text: str) -> None:
    assert load_config(None, (f"preprocess.circle={text}",)).preprocess.circle == "off"


def _keys(data: dict[str, object], prefix: str = "") -> set[str]:
    found = set()
    for key, value in data.items():
        found |= _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found
