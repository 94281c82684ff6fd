"""Which settings may change in an existing run.

Each setting has a kind, a `Binds`: it stands in the annotation of its field, or else of its section
(`ctray.config.run.RunConfig`). Settings are named `task` or `section.key`. When a command works on
an existing run, the kind says what becomes of another value:

- `BOX_KINDS`: refused, because the boxes of the run would no longer be comparable.
- `KEPT_KINDS`: kept in the run from now on.
- `Binds.NOTHING` and `Binds.COMMAND`: used by this command alone.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from pydantic.fields import FieldInfo

from ctray.config.loading import parse_config
from ctray.config.run import RunConfig
from ctray.config.section import Binds, Section

# Another value needs another run folder.
BOX_KINDS = (Binds.TRAINING, Binds.SELF_TRAINING, Binds.BOX)
# A run takes over another value.
KEPT_KINDS = (Binds.CROP, Binds.VOLUMES)


@cache
def bindings() -> dict[str, Binds]:
    """Return the kind of every setting, by name."""
    found: dict[str, Binds] = {}
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for key, inner in section.model_fields.items():
                found[f"{name}.{key}"] = _of(inner) or _of(field) or Binds.BOX
        else:
            found[name] = _of(field) or Binds.BOX
    return found


def settings_of(config: RunConfig, *kinds: Binds) -> dict[str, Any]:
    """Return the values of the settings of these kinds, by name, as JSON values."""
    data = config.model_dump(mode="json")
    values = {}
    for name, kind in bindings().items():
        if kind in kinds:
            section, _, key = name.partition(".")
            values[name] = data[section][key] if key else data[section]
    return values


def changed_settings(theirs: RunConfig, ours: RunConfig, *kinds: Binds) -> list[str]:
    """Return the sorted names of the settings of these kinds that differ."""
    before, after = settings_of(theirs, *kinds), settings_of(ours, *kinds)
    return sorted(name for name in before if before[name] != after[name])


def settings_digest(config: RunConfig, *kinds: Binds) -> str:
    """Return a digest of the settings of these kinds: 16 hexadecimal digits."""
    text = json.dumps(settings_of(config, *kinds), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def on_top_of(begun: RunConfig, given: RunConfig) -> RunConfig:
    """Return the settings of an existing run with given settings on top.

    Parameters
    ----------
    begun
        Settings of the run.
    given
        Settings from a file and options. Fields that were not set keep the value of the run.
    """
    data = with_settings_of(begun, given, Binds.COMMAND).model_dump(mode="json")
    for name, value in given.model_dump(mode="json", exclude_unset=True).items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    return parse_config(data, source="options")


def with_settings_of(config: RunConfig, other: RunConfig, *kinds: Binds) -> RunConfig:
    """Return `config` with the settings of these kinds from `other`."""
    data = config.model_dump(mode="json")
    for name, value in settings_of(other, *kinds).items():
        section, _, key = name.partition(".")
        if key:
            data[section][key] = value
        else:
            data[section] = value
    return parse_config(data, source="settings")


def _of(field: FieldInfo) -> Binds | None:
    return next((note for note in field.metadata if isinstance(note, Binds)), None)
