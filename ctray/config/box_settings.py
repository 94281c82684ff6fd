"""The settings that decide where a box lies, and their digest.

A calibration holds for the settings that it was made with, and for no others: margins that suffice
for faces found one way say nothing of faces found another way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ctray.config.run import RunConfig

# Raise this whenever the code between voxels and boxes changes: preprocessing, networks, training,
# faces, decisions. Calibrations of another number promise nothing, so make the shipped one anew
# (ctray benchmark calibration --ship).
METHOD_VERSION = 1

# Which volumes, where, by whom, and what is done once the box is known.
_SECTIONS_APART = {"catalog", "crop", "pool", "ray", "job", "kube"}
_APART = {
    # A promise is about the method, over the draws of its training.
    "train.seed",
    # Archives differ in size anyway, and a calibration cannot follow that.
    *("train.max_volumes", "train.validation_part"),
    # How the work is spread and noted.
    *("train.checkpoint_every", "train.log_every"),
    *("train.num_workers", "train.num_readers", "train.num_gpus_per_worker"),
    # It splits what was found; nothing is ever promised of the parts.
    "localize.instances",
}
# A section of one pretext task says nothing where the other one is used.
_SECTIONS_OF_TASK = {"rotation": {"rotation"}, "sorting": {"sorting", "uncertainty"}}


def box_settings(config: RunConfig) -> dict[str, Any]:
    """Values of all settings that move a box, by name: `task`, or `section.key`.

    Whatever is not known to leave boxes alone is taken to move them, so a new setting counts until
    somebody decides otherwise.
    """
    other_task = set().union(*_SECTIONS_OF_TASK.values()) - _SECTIONS_OF_TASK[config.task]
    found: dict[str, Any] = {}
    for section, value in config.model_dump(mode="json").items():
        if section in _SECTIONS_APART | other_task:
            continue
        named = {section: value}
        if isinstance(value, dict):
            named = {f"{section}.{key}": v for key, v in value.items()}
        found |= {name: v for name, v in named.items() if name not in _APART}
    if not config.refine.enabled:
        kept = "refine.enabled"
        found = {n: v for n, v in found.items() if n == kept or not n.startswith("refine.")}
    return found


def box_settings_digest(config: RunConfig, trained_by: Iterable[int] = ()) -> str:
    """Digest of all settings that move a box, and of the version of the method.

    Parameters
    ----------
    config
        Settings that the boxes are found with.
    trained_by
        `METHOD_VERSION` of the code that trained the networks, where that may be another one.

    Returns
    -------
    str
        "sha256:" and 16 hexadecimal digits.
    """
    versions = sorted({METHOD_VERSION, *trained_by})
    text = json.dumps([versions, box_settings(config)], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def changed_box_settings(config: RunConfig, settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings that move a box and differ from `settings`, `box_settings` of others.

    A setting that only one of the two knows differs, too.
    """
    ours = box_settings(config)
    names = {**settings, **ours}
    return [n for n in names if n not in ours or n not in settings or ours[n] != settings[n]]
