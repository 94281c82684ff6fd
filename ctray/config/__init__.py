"""Settings of a run: one model per section, with every default and its description.

`run` has the whole; `volumes`, `learning` and `cluster` have its sections. `loading` reads YAML,
`binding` says which settings an existing run can change, and `box_settings` which ones move boxes.
"""

from ctray.config.binding import (
    BOX_KINDS,
    KEPT_KINDS,
    changed_settings,
    on_top_of,
    settings_digest,
    settings_of,
    with_settings_of,
)
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
from ctray.config.section import Binds
from ctray.config.volumes import (
    CatalogConfig,
    CropConfig,
    LocalizeConfig,
    PreprocessConfig,
    SelfTrainConfig,
    UncertaintyConfig,
)

__all__ = [
    "BOX_KINDS",
    "KEPT_KINDS",
    "Augmentation",
    "Binds",
    "CatalogConfig",
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
    "SelfTrainConfig",
    "SortingConfig",
    "TrainConfig",
    "UncertaintyConfig",
    "changed_settings",
    "load_config",
    "load_config_text",
    "on_top_of",
    "override",
    "parse_config",
    "random_displacement",
    "recorded_config",
    "settings_digest",
    "settings_of",
    "with_settings_of",
]
