"""Configuration of a run: one model per stage, read from YAML, every default declared here."""

from ctray.config.cluster import (
    JobConfig,
    KubeConfig,
    PoolConfig,
    RayConfig,
)
from ctray.config.learning import (
    Augmentation,
    EncoderConfig,
    RotationConfig,
    SortingConfig,
    TrainConfig,
    random_displacement,
)
from ctray.config.loading import (
    load_config,
    load_config_text,
    override,
    parse_config,
    recorded_config,
)
from ctray.config.run import RunConfig
from ctray.config.volumes import (
    CatalogConfig,
    CropConfig,
    LocalizeConfig,
    PreprocessConfig,
    RefineConfig,
    UncertaintyConfig,
)

__all__ = [
    "Augmentation",
    "CatalogConfig",
    "CropConfig",
    "EncoderConfig",
    "JobConfig",
    "KubeConfig",
    "LocalizeConfig",
    "PoolConfig",
    "PreprocessConfig",
    "RayConfig",
    "RefineConfig",
    "RotationConfig",
    "RunConfig",
    "SortingConfig",
    "TrainConfig",
    "UncertaintyConfig",
    "load_config",
    "load_config_text",
    "override",
    "parse_config",
    "random_displacement",
    "recorded_config",
]
