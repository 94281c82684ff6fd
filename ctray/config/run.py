"""All settings of a run, and the names of its tasks."""

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


# What differs from the defaults above where the task is not rotation; a setting that is given
# wins. Sorting pools everything, since its score needs no orientation, but must recognise what it
# sees: a fourth stage learned twice as fast, full dropout half as fast (tried on phantoms). A bag
# holds many slices, and the paper holds out a quarter of the volumes.
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
    """Everything that a run of ctray can be told."""

    task: Annotated[Task, Binds.TRAINING] = "rotation"
    """Pretext task, and with it the way to a box: certainty (`rotation`) or variance
    (`sorting`)."""
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
                "localize.specimens (--specimens) tells specimens apart by the self-trained "
                "network, and self_train.enabled is false; set it to true"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_of_task(
        cls, data: Any, handler: ModelWrapValidatorHandler[RunConfig]
    ) -> RunConfig:
        """Fill in the defaults of the task; the fields that are filled count as not given."""
        task = data.get("task") if isinstance(data, dict) else None
        if not isinstance(task, str):
            return handler(data)
        filled, added = dict(data), {}
        for section, values in _TASK_DEFAULTS.get(task, {}).items():
            given = filled.get(section, {})
            if isinstance(given, dict):
                # Two that must fit each other: whoever gives one means it with the usual other.
                both = {"widths", "output_stride"}
                own = {k: v for k, v in values.items() if k not in both or not both & given.keys()}
                filled[section] = own | given
                added[section] = own.keys() - given.keys()
        config = handler(filled)
        for section, names in added.items():
            getattr(config, section).model_fields_set.difference_update(names)
        config.model_fields_set.intersection_update(data)
        return config
