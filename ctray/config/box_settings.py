"""The settings that decide where a box lies, and their digest.

A calibration holds for the settings that it was made with, and for no others: margins that suffice
for faces found one way say nothing of faces found another way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from ctray.config.run import RunConfig

# Raise this whenever the code between voxels and boxes changes: preprocessing, networks, training,
# faces, decisions. Calibrations of another number promise nothing, so make the shipped one anew
# (ctray benchmark calibration --ship).
METHOD_VERSION = 1

# Which volumes, where, by whom, and what is done once the box is known.
_OTHER_SECTIONS = {"catalog", "crop", "pool", "ray", "job", "kube"}
_OTHER_FIELDS = {
    # Seed: a promise is about the method, over the draws of its training. Number of volumes and
    # how many are held out: archives differ in size anyway, and a calibration cannot follow that.
    # The rest is how the work is spread and noted.
    "train": {
        *("seed", "max_volumes", "validation_part", "checkpoint_every", "log_every"),
        *("num_workers", "num_readers", "num_gpus_per_worker"),
    },
    # It splits what was found; nothing is ever promised of the parts.
    "localize": {"instances"},
}
# A section of one pretext task says nothing where the other one is used.
_SECTIONS_OF_TASK = {"rotation": {"rotation"}, "sorting": {"sorting", "uncertainty"}}


def box_settings(config: RunConfig) -> dict[str, Any]:
    """Values of all settings that move a box, by section.

    Whatever is not known to leave boxes alone is taken to move them, so a new setting counts until
    somebody decides otherwise.
    """
    other_tasks = set().union(*_SECTIONS_OF_TASK.values()) - _SECTIONS_OF_TASK[config.task]
    found = config.model_dump(mode="json", exclude=_OTHER_SECTIONS | other_tasks)
    for section, names in _OTHER_FIELDS.items():
        found[section] = {k: v for k, v in found[section].items() if k not in names}
    if not config.refine.enabled:
        found["refine"] = {"enabled": False}
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


def changed_box_settings(config: RunConfig, settings: dict[str, Any]) -> list[str]:
    """Names, `section.key`, of the settings that move a box and differ from `settings`.

    Parameters
    ----------
    config
        One configuration.
    settings
        `box_settings` of another one.
    """
    ours, theirs = _flat(box_settings(config)), _flat(settings)
    names = {**theirs, **ours}
    return [n for n in names if n not in ours or n not in theirs or ours[n] != theirs[n]]


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Values by `section.key`; a setting outside any section keeps its own name."""
    flat: dict[str, Any] = {}
    for section, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{section}.{key}": v for key, v in value.items()}
        else:
            flat[section] = value
    return flat
