"""The settings that move a box, and their digest.

A calibration is valid only for boxes that were found with the same settings and the same version of
the method. The digest stands for both. It is in every receipt and in every calibration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ctray.config.binding import BOX_KINDS, settings_of
from ctray.config.run import RunConfig

# Increase this when the code between voxels and boxes changes: preprocessing, networks, training,
# faces, decisions. Calibrations with another number become invalid, so make the shipped one anew
# with `ctray benchmark calibration --ship`.
METHOD_VERSION = 2

_APART = {
    # The calibration is about the method, not about one seed.
    "train.seed",
    # Archives differ in size, and a calibration must be valid for all sizes.
    *("train.max_volumes", "train.validation_fraction"),
    # It divides a found box; no loss rate is stated for the parts.
    "localize.specimens",
}
# Sections that do not count: the choice of volumes, and sections of the other pretext task.
_SECTIONS_APART = {
    "rotation": {"catalog", "sorting", "uncertainty"},
    "sorting": {"catalog", "rotation"},
}


def box_settings(config: RunConfig) -> dict[str, Any]:
    """Return the values of all settings that move a box, by name (`task`, or `section.key`).

    These are the settings that need another run folder (`BOX_KINDS`), without the few in `_APART`
    and `_SECTIONS_APART`.
    """
    found = settings_of(config, *BOX_KINDS)
    apart = _SECTIONS_APART[config.task] | (set() if config.self_train.enabled else {"self_train"})
    return {
        name: value
        for name, value in found.items()
        if name == "self_train.enabled"
        or (name.partition(".")[0] not in apart and name not in _APART)
    }


def box_settings_digest(config: RunConfig, trained_by: Iterable[int] = ()) -> str:
    """Return the digest of all settings that move a box, and of the version of the method.

    Parameters
    ----------
    config
        Settings of the boxes.
    trained_by
        `METHOD_VERSION` of the code that trained the networks, if it may differ.

    Returns
    -------
    str
        "sha256:" and 16 hexadecimal digits.
    """
    versions = sorted({METHOD_VERSION, *trained_by})
    text = json.dumps([versions, box_settings(config)], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def changed_box_settings(config: RunConfig, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that move a box and differ from other `box_settings`.

    A setting that only one side has also differs.
    """
    ours = box_settings(config)
    names = {**settings, **ours}
    return [n for n in names if n not in ours or n not in settings or ours[n] != settings[n]]
