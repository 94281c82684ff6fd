"""The configuration: what it refuses and how it says so, and the arithmetic of batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.config import (
    Binds,
    RunConfig,
    TrainConfig,
    changed_settings,
    load_config,
    on_top_of,
    parse_config,
    settings_digest,
)
from ctray.config.binding import bindings
from ctray.core.errors import ConfigError


def message_of(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, source="run.yaml")
    text = str(caught.value)
    assert text.startswith("run.yaml: ")
    assert "\n" not in text
    return text


def test_nothing_given_is_the_defaults() -> None:
    assert load_config(None) == RunConfig()
    assert parse_config({}) == RunConfig()


def test_configuration_is_the_same_after_json() -> None:
    config = parse_config({"encoder": {"widths": [3, 5, 7]}, "localize": {"threshold": 0.25}})
    assert parse_config(config.model_dump(mode="json")) == config


def test_no_field_can_be_set_later() -> None:
    with pytest.raises(Exception, match="frozen"):
        RunConfig().train.steps = 3  # type: ignore[misc]


def test_bare_off_of_yaml_is_off(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("preprocess: {circle: off, drift: auto}\n")
    preprocess = load_config(path, ("preprocess.rings=off",)).preprocess
    assert (preprocess.circle, preprocess.drift, preprocess.rings) == ("off", "auto", "off")


@pytest.mark.parametrize(
    ("data", "nearest"),
    [
        ({"train": {"lerning_rate": 1}}, "learning_rate"),
        ({"trian": {}}, "train"),
        ({"encoder": {"width": [1]}}, "widths"),
        ({"localize": {"orientation": 2}}, "orientations"),
    ],
)
def test_unknown_key_names_the_nearest(data: dict[str, Any], nearest: str) -> None:
    text = message_of(data)
    assert "unknown key" in text
    assert f"did you mean {nearest}?" in text


def test_unknown_key_like_no_other_lists_the_known_ones() -> None:
    text = message_of({"crop": {"qqqqqq": 1}})
    assert "unknown key crop.qqqqqq" in text
    for known in ("margin", "max_stride", "ome_version"):
        assert known in text


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"train": {"steps": 0}}, "train.steps"),
        ({"train": {"steps": "many"}}, "train.steps"),
        ({"train": {"learning_rate": -1}}, "train.learning_rate"),
        ({"train": {"warmup": 1.0}}, "train.warmup"),
        ({"encoder": {"output_stride": 7}}, "encoder.output_stride"),
        ({"encoder": {"dropout": 1.0}}, "encoder.dropout"),
        ({"rotation": {"axes": ["t"]}}, "rotation.axes"),
        ({"rotation": {"twin_range": 0}}, "rotation.twin_range"),
        ({"localize": {"threshold": "high"}}, "localize.threshold"),
        ({"localize": {"threshold": 1.5}}, "localize.threshold"),
        ({"localize": {"twin_offsets": [1, 0]}}, "localize.twin_offsets"),
        ({"localize": {"twin_offsets": []}}, "localize.twin_offsets"),
        ({"rotation": {"axes": []}}, "rotation.axes"),
        ({"encoder": {"widths": [4, 0, 8]}}, "encoder.widths"),
        ({"train": {"seed": -1}}, "train.seed"),
        ({"train": {"seed": 2**63}}, "train.seed"),
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate"),
        ({"train": {"weight_decay": float("nan")}}, "train.weight_decay"),
        ({"catalog": {"voxel_size_um": [1.0, 2.0, -3.0]}}, "catalog.voxel_size_um"),
        ({"crop": {"margin": 0.5}}, "crop.margin"),
        ({"crop": {"ome_version": "0.3"}}, "crop.ome_version"),
        ({"catalog": {"voxel_size_um": [1.0, 2.0]}}, "catalog.voxel_size_um"),
        ({"preprocess": {"working_size": 3}}, "preprocess.working_size"),
        ({"task": "sudoku"}, "task"),
        ({"train": 7}, "train"),
        ({"pool": {"min_size": 3, "max_size": 2}}, "pool"),
        ({"preprocess": {"window_percentiles": [99, 1]}}, "preprocess"),
        ({"preprocess": {"window_percentiles": [-1, 101]}}, "preprocess"),
    ],
)
def test_bad_value_is_named_with_what_was_given(data: dict[str, Any], names: str) -> None:
    text = message_of(data)
    assert names in text
    assert "(got " in text


def test_two_mistakes_are_both_told() -> None:
    text = message_of({"train": {"steps": 0, "stpes": 1}})
    assert "train.steps" in text
    assert "train.stpes" in text


def numbers_without_a_limit(name: str, schema: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Names of the numbers, and lists of numbers, that a JSON schema sets no upper limit to."""
    if "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    parts = [(name, part) for key in ("anyOf", "prefixItems") for part in schema.get(key, [])]
    parts += [(f"{name}.{key}", part) for key, part in schema.get("properties", {}).items()]
    found = []
    items = schema.get("items")
    if isinstance(items, dict):
        parts.append((name, items))
        if items.get("type") in ("integer", "number") and "maxItems" not in schema:
            found.append(f"{name} (length)")
    limits = {"maximum", "exclusiveMaximum", "enum"}
    if schema.get("type") in ("integer", "number") and limits.isdisjoint(schema):
        found.append(name)
    return found + [n for key, part in parts for n in numbers_without_a_limit(key, part, known)]


def test_every_number_has_an_upper_limit() -> None:
    schema = RunConfig.model_json_schema()
    assert numbers_without_a_limit("", schema, schema["$defs"]) == []


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"train": {"steps": 10**22}}, "train.steps"),
        ({"self_train": {"steps": 10**9}}, "self_train.steps"),
        ({"encoder": {"widths": [10**9]}}, "encoder.widths"),
        ({"encoder": {"widths": [8] * 9}}, "encoder.widths"),
        ({"train": {"batch_size": 10**6}}, "train.batch_size"),
        ({"preprocess": {"working_size": 10**6}}, "preprocess.working_size"),
        ({"pool": {"max_size": 10**9}}, "pool.max_size"),
        ({"ray": {"object_store_mb": 10**12}}, "ray.object_store_mb"),
        ({"self_train": {"min_peak": 1e9}}, "self_train.min_peak"),
        ({"rotation": {"angle_step": 1e-9}}, "rotation.angle_step"),
    ],
)
def test_number_beyond_its_limit_is_told_with_it(data: dict[str, Any], names: str) -> None:
    text = message_of(data)
    assert names in text
    assert "at most" in text or "or equal to" in text


def test_sizes_that_are_too_large_together_are_told() -> None:
    encoder = {"widths": [4096], "pool_grid": 64, "embedding_dim": 16_384}
    assert "274,877,906,944 weights" in message_of({"encoder": encoder})


# --- what binds a run -----------------------------------------------------------------------


def test_every_setting_says_what_it_binds() -> None:
    found = bindings()
    values = RunConfig().model_dump()
    leaves = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in values.items()
        for key in (value if isinstance(value, dict) else [name])
    }
    assert found.keys() == leaves
    for name, field in RunConfig.model_fields.items():
        assert any(isinstance(note, Binds) for note in field.metadata), name
    of = {
        "task": Binds.TRAINING,
        "train.steps": Binds.TRAINING,
        "train.num_readers": Binds.NOTHING,
        "train.checkpoint_every": Binds.NOTHING,
        "localize.threshold": Binds.SELF_TRAINING,
        "localize.specimens": Binds.BOX,
        "self_train.slabs": Binds.SELF_TRAINING,
        "self_train.min_peak": Binds.BOX,
        "crop.margin": Binds.CROP,
        "crop.keep_surround": Binds.CROP,
        "catalog.exclude": Binds.VOLUMES,
        "catalog.dataset": Binds.BOX,
        "pool.max_size": Binds.NOTHING,
        "job.run": Binds.COMMAND,
    }
    assert {name: found[name] for name in of} == of


def test_changed_settings_are_those_of_the_kind_that_is_asked_for() -> None:
    ours = load_config(None, ("crop.margin=0.1", "train.seed=4", "pool.max_size=9"))
    assert changed_settings(RunConfig(), ours, Binds.CROP) == ["crop.margin"]
    assert changed_settings(RunConfig(), ours, Binds.TRAINING, Binds.CROP) == [
        "crop.margin",
        "train.seed",
    ]
    assert settings_digest(RunConfig(), Binds.BOX) == settings_digest(ours, Binds.BOX)
    assert settings_digest(RunConfig(), Binds.CROP) != settings_digest(ours, Binds.CROP)


def test_what_was_given_goes_on_top_of_a_run() -> None:
    begun = load_config(None, ("task=sorting", "encoder.dropout=0.2", "job.run=/old"))
    given = load_config(None, ("task=sorting", "crop.margin=0.1"))
    both = on_top_of(begun, given)
    # The task's own defaults are none that were given.
    assert both.encoder.dropout == 0.2
    assert both.crop.margin == 0.1
    assert both.train.batch_size == 8
    assert both.job.run is None


def test_settings_of_a_run_are_a_configuration(tmp_path: Path) -> None:
    begun = load_config(None, ("train.learning_rate=0.00001", "localize.threshold=0.00002"))
    path = tmp_path / "run.json"
    document = {"archive": "/a", "config": begun.model_dump(mode="json"), "ctray_version": "0"}
    path.write_text(json.dumps(document, indent=2))
    assert load_config(path) == begun
    assert load_config(path, ("train.seed=3",)).train.seed == 3
    # Of a version that knew no drift.
    del document["config"]["rotation"]
    path.write_text(json.dumps(document))
    assert load_config(path).rotation.drift == 0


@pytest.mark.parametrize("text", ["9" * 5000, "a: " + "9" * 5000, "[" * 3000])
def test_text_that_breaks_a_parser_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml") as caught:
        load_config(path)
    assert len(str(caught.value)) < 1000


# --- overrides ------------------------------------------------------------------------------


def test_override_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train:\n  steps: 10\n  seed: 4\ncrop:\n  margin: 0.1\n")
    config = load_config(path, ("train.steps=20", "encoder.widths=[4, 8, 12]", "task=rotation"))
    assert (config.train.steps, config.train.seed, config.crop.margin) == (20, 4, 0.1)
    assert config.encoder.widths == (4, 8, 12)


def test_last_override_wins() -> None:
    assert load_config(None, ("train.steps=2", "train.steps=3")).train.steps == 3


def test_override_to_null() -> None:
    assert load_config(None, ("catalog.dataset=",)).catalog.dataset is None


@pytest.mark.parametrize("item", ["train.steps", "=3", "task.name.more=1", "train.nope=1"])
def test_bad_override_is_named(item: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task: rotation\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, (item,))
    assert item.partition("=")[0].split(".")[-1] in str(caught.value)


def test_override_that_is_no_yaml_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="widths"):
        load_config(None, ("encoder.widths=[4, 8",))


# --- files ----------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml cannot be read: No such file"):
        load_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [("a: [1, 2", "is not YAML"), ("- 1\n- 2\n", "must be a mapping"), ("7", "must be a mapping")],
)
def test_file_that_is_no_configuration(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_file_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00train")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(path)


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# nothing\n")
    assert load_config(path) == RunConfig()


# --- arithmetic -----------------------------------------------------------------------------


@given(
    batch=st.integers(1, 24),
    length=st.integers(1, 24),
    interleave=st.integers(1, 12),
    workers=st.integers(1, 6),
)
def test_batches_fit_or_are_refused(batch: int, length: int, interleave: int, workers: int) -> None:
    """Accepted is exactly what cuts a round into whole batches, shared evenly by the workers."""
    train = {
        "batch_size": batch,
        "run_length": length,
        "interleave": interleave,
        "num_workers": workers,
    }
    fits = (
        (length * interleave) % batch == 0 and batch % interleave == 0 and interleave % workers == 0
    )
    if fits:
        parsed = parse_config({"train": train}).train
        assert parsed.batch_size % parsed.num_workers == 0
    else:
        assert "must be a multiple" in message_of({"train": train})


@pytest.mark.parametrize(("most", "step", "classes"), [(90, 30, 7), (90, 90, 3), (180, 45, 9)])
def test_number_of_classes(most: float, step: float, classes: int) -> None:
    config = parse_config({"rotation": {"max_angle": most, "angle_step": step}})
    assert config.rotation.num_classes == classes


def test_angles_that_do_not_meet_the_end_are_refused() -> None:
    assert "must be a multiple" in message_of({"rotation": {"max_angle": 90, "angle_step": 40}})


def test_default_threshold_may_be_a_whole_number() -> None:
    assert parse_config({"localize": {"threshold": 1}}).localize.threshold == 1.0


def test_train_defaults_are_the_papers_angles_and_whole_rounds() -> None:
    config = RunConfig()
    assert config.rotation.num_classes == 7
    train: TrainConfig = config.train
    assert train.run_length * train.interleave % train.batch_size == 0


def test_sorting_has_its_own_defaults_and_given_settings_win() -> None:
    config = parse_config({"task": "sorting", "train": {"batch_size": 16}})
    assert config.encoder.pool_grid == 1
    assert config.train.validation_fraction == 0.25
    assert config.train.batch_size == 16
    assert RunConfig().train.validation_fraction == 0
    assert parse_config(config.model_dump(mode="json")) == config


def test_widths_of_the_users_own_keep_the_stride_that_fits_them() -> None:
    encoder = parse_config({"task": "sorting", "encoder": {"widths": [4, 6, 8]}}).encoder
    assert (encoder.widths, encoder.output_stride, encoder.dropout) == ((4, 6, 8), 8, 0.05)


def test_task_can_be_set_on_the_command_line() -> None:
    assert load_config(None, ("task=sorting",)).encoder.output_stride == 16
    with pytest.raises(ConfigError, match="task"):
        load_config(None, ("task=jigsaw",))


def test_sorting_needs_an_axis() -> None:
    with pytest.raises(ConfigError, match="at least one of z, y, x"):
        parse_config({"sorting": {"axes": []}})


def test_shifts_divide_every_superpixel() -> None:
    with pytest.raises(ConfigError, match=r"uncertainty\.shifts"):
        parse_config({"uncertainty": {"stride": 8, "shifts": 3}})
