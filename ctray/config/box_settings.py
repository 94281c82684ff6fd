"""The settings that decide where a box lies, and their digest.

A calibration holds for the settings that it was made with, and for no others: margins that suffice
for faces found one way say nothing of faces found another way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ctray.config.binding import BOX_KINDS, settings_of
from ctray.config.run import RunConfig

# Raise this whenever the code between voxels and boxes changes: preprocessing, networks, training,
# faces, decisions. Calibrations of another number promise nothing, so make the shipped one anew
# (ctray benchmark calibration --ship).
METHOD_VERSION = 2

_APART = {
    # A promise is about the method, over the draws of its training.
    "train.seed",
    # Archives differ in size anyway, and a calibration cannot follow that.
    *("train.max_volumes", "train.validation_part"),
    # It splits what was found; nothing is ever promised of the parts.
    "localize.instances",
}
# The voxels themselves, however boxes are found in them; a section of the other pretext task.
_SECTIONS_APART = {
    "rotation": {"catalog", "sorting", "uncertainty"},
    "sorting": {"catalog", "rotation"},
}


def box_settings(config: RunConfig) -> dict[str, Any]:
    """Values of all settings that move a box, by name: `task`, or `section.key`.

    They are those that ask for another run folder (`ctray.config.binding`), but for the few that
    leave the way to a box as it is.
    """
    found = settings_of(config, *BOX_KINDS)
    apart = _SECTIONS_APART[config.task] | (set() if config.refine.enabled else {"refine"})
    return {
        name: value
        for name, value in found.items()
        if name == "refine.enabled" or (name.partition(".")[0] not in apart and name not in _APART)
    }


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
