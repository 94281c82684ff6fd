"""Which settings bind a run: read from the fields of the configuration, where each says it.

A field is annotated with a `Binds`, or takes that of its section.
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

# What another run folder is for.
BOX_KINDS = (Binds.TRAINING, Binds.SELF_TRAINING, Binds.BOX)
# What a run takes over from the command that says otherwise.
KEPT_KINDS = (Binds.CROP, Binds.VOLUMES)


@cache
def bindings() -> dict[str, Binds]:
    """What each setting binds, by its name: `task`, or `section.key`."""
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
    """Values of the settings that bind one of `kinds`, by name, as JSON has them."""
    data = config.model_dump(mode="json")
    values = {}
    for name, kind in bindings().items():
        if kind in kinds:
            section, _, key = name.partition(".")
            values[name] = data[section][key] if key else data[section]
    return values


def changed_settings(theirs: RunConfig, ours: RunConfig, *kinds: Binds) -> list[str]:
    """Names of the settings that bind one of `kinds` and differ, sorted."""
    before, after = settings_of(theirs, *kinds), settings_of(ours, *kinds)
    return sorted(name for name in before if before[name] != after[name])


def settings_digest(config: RunConfig, *kinds: Binds) -> str:
    """Digest of the settings that bind one of `kinds`: the same for equal ones."""
    text = json.dumps(settings_of(config, *kinds), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def on_top_of(begun: RunConfig, given: RunConfig) -> RunConfig:
    """Settings of a run, with those on top that were given.

    Parameters
    ----------
    begun
        Settings of the run.
    given
        From a file and options: what was not set in it stays as the run has it.
    """
    data = with_settings_of(begun, given, Binds.COMMAND).model_dump(mode="json")
    for name, value in given.model_dump(mode="json", exclude_unset=True).items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    return parse_config(data, source="options")


def with_settings_of(config: RunConfig, other: RunConfig, *kinds: Binds) -> RunConfig:
    """`config`, and the settings of `other` that bind one of `kinds`."""
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
