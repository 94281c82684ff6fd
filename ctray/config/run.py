"""All settings of a run, and the names of its tasks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from ctray.config.cluster import JobConfig, KubeConfig, PoolConfig, RayConfig
from ctray.config.learning import EncoderConfig, RotationConfig, SortingConfig, TrainConfig
from ctray.config.section import Section
from ctray.config.volumes import (
    CatalogConfig,
    CropConfig,
    LocalizeConfig,
    PreprocessConfig,
    RefineConfig,
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
        "train": {"batch_size": 8, "run_length": 8, "validation_part": 0.25},
    }
}


class RunConfig(Section):
    """Everything that a run of ctray can be told."""

    task: Task = "rotation"
    """Pretext task, and with it the way to a box: certainty (`rotation`) or variance
    (`sorting`)."""
    catalog: CatalogConfig = CatalogConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    encoder: EncoderConfig = EncoderConfig()
    rotation: RotationConfig = RotationConfig()
    sorting: SortingConfig = SortingConfig()
    train: TrainConfig = TrainConfig()
    localize: LocalizeConfig = LocalizeConfig()
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    refine: RefineConfig = RefineConfig()
    crop: CropConfig = CropConfig()
    pool: PoolConfig = PoolConfig()
    ray: RayConfig = RayConfig()
    job: JobConfig = JobConfig()
    kube: KubeConfig = KubeConfig()

    @model_validator(mode="after")
    def _can_tell_specimens_apart(self) -> RunConfig:
        if self.localize.instances and not self.refine.enabled:
            raise ValueError(
                "localize.instances (--instances) tells specimens apart by the self-trained "
                "network, and refine.enabled is false; set it to true"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_task(cls, data: Any) -> Any:
        task = data.get("task") if isinstance(data, dict) else None
        if not isinstance(task, str):
            return data
        filled = dict(data)
        for section, values in _TASK_DEFAULTS.get(task, {}).items():
            given = filled.get(section, {})
            if isinstance(given, dict):
                # Two that must fit each other: whoever gives one means it with the usual other.
                both = {"widths", "output_stride"}
                own = {k: v for k, v in values.items() if k not in both or not both & given.keys()}
                filled[section] = own | given
        return filled
