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
)
from ctray.config.run import RunConfig
from ctray.config.volumes import (
    CropConfig,
    LocalizeConfig,
    PreprocessConfig,
    UncertaintyConfig,
)

__all__ = [
    "Augmentation",
    "CropConfig",
    "EncoderConfig",
    "JobConfig",
    "KubeConfig",
    "LocalizeConfig",
    "PoolConfig",
    "PreprocessConfig",
    "RayConfig",
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
]
