"""All settings of a run in one model, and the names of its tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ModelWrapValidatorHandler, model_validator

from ctray.config.cluster import JobConfig, KubeConfig, PoolConfig, RayConfig
from ctray.config.learning import EncoderConfig, RotationConfig, SortingConfig, TrainConfig
from ctray.config.section import Binds, Section
from ctray.config.volumes import (
    CatalogConfig,
    CropConfig,
    LocalizeConfig,
    PreprocessConfig,
    SelfTrainConfig,
    UncertaintyConfig,
)

Task = Literal["rotation", "sorting"]


# Defaults that differ for another task than rotation. Settings that are given win. Sorting pools
# globally, because its score needs no orientation. But it must recognise more: on phantoms, a
# fourth stage learned twice as fast, and full dropout half as fast. An example of sorting has many
# slices, and the paper holds out a quarter of the volumes.
_TASK_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "sorting": {
        "encoder": {
            "widths": (24, 48, 96, 192),
            "output_stride": 16,
            "pool_grid": 1,
            "dropout": 0.05,
        },
        "train": {"batch_size": 8, "run_length": 8, "validation_fraction": 0.25},
    }
}


class RunConfig(Section):
    """All settings of a run."""

    task: Annotated[Task, Binds.TRAINING] = "rotation"
    """Pretext task. It also selects the localization method: `rotation` uses the certainty of the
    classifier, `sorting` the variance under dropout. `sorting` has other defaults: `encoder.widths`
    [24, 48, 96, 192], `encoder.output_stride` 16, `encoder.pool_grid` 1, `encoder.dropout` 0.05,
    `train.batch_size` 8, `train.run_length` 8 and `train.validation_fraction` 0.25."""
    catalog: Annotated[CatalogConfig, Binds.BOX] = CatalogConfig()
    preprocess: Annotated[PreprocessConfig, Binds.TRAINING] = PreprocessConfig()
    encoder: Annotated[EncoderConfig, Binds.TRAINING] = EncoderConfig()
    rotation: Annotated[RotationConfig, Binds.TRAINING] = RotationConfig()
    sorting: Annotated[SortingConfig, Binds.TRAINING] = SortingConfig()
    train: Annotated[TrainConfig, Binds.TRAINING] = TrainConfig()
    localize: Annotated[LocalizeConfig, Binds.SELF_TRAINING] = LocalizeConfig()
    uncertainty: Annotated[UncertaintyConfig, Binds.SELF_TRAINING] = UncertaintyConfig()
    self_train: Annotated[SelfTrainConfig, Binds.SELF_TRAINING] = SelfTrainConfig()
    crop: Annotated[CropConfig, Binds.CROP] = CropConfig()
    pool: Annotated[PoolConfig, Binds.NOTHING] = PoolConfig()
    ray: Annotated[RayConfig, Binds.NOTHING] = RayConfig()
    job: Annotated[JobConfig, Binds.COMMAND] = JobConfig()
    kube: Annotated[KubeConfig, Binds.COMMAND] = KubeConfig()

    @model_validator(mode="after")
    def _can_tell_specimens_apart(self) -> RunConfig:
        if self.localize.specimens and not self.self_train.enabled:
            raise ValueError(
                "localize.specimens (--specimens) needs the self-trained network; set "
                "self_train.enabled to true"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_of_task(
        cls, data: Any, handler: ModelWrapValidatorHandler[RunConfig]
    ) -> RunConfig:
        """Fill in the defaults of the task. Filled fields count as not given."""
        task = data.get("task") if isinstance(data, dict) else None
        if not isinstance(task, str):
            return handler(data)
        filled, added = dict(data), {}
        for section, values in _TASK_DEFAULTS.get(task, {}).items():
            given = filled.get(section, {})
            if isinstance(given, dict):
                # These two must fit each other: a given one goes with the usual other one.
                both = {"widths", "output_stride"}
                own = {k: v for k, v in values.items() if k not in both or not both & given.keys()}
                filled[section] = own | given
                added[section] = own.keys() - given.keys()
        config = handler(filled)
        for section, names in added.items():
            getattr(config, section).model_fields_set.difference_update(names)
        config.model_fields_set.intersection_update(data)
        return config
