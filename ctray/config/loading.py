"""Loading of settings from YAML and the command line, with errors of one line."""

from __future__ import annotations

import difflib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ctray.config.run import RunConfig
from ctray.core.errors import ConfigError, one_line

# Most characters of a wrong value in a message.
_MOST_SHOWN = 200


def load_config(path: str | Path | None, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read the configuration of a run.

    Parameters
    ----------
    path
        YAML file, or the `run.json` of a run; None gives the defaults.
    overrides
        `section.key=value` strings that win over the file. Values are YAML.

    Raises
    ------
    ConfigError
        For an unreadable file, an unknown key (with the nearest known one) or a bad value.
    """
    if path is None:
        return load_config_text("", overrides, "options")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is not UTF-8 text: {error.reason}") from error
    return load_config_text(text, overrides, str(path))


def load_config_text(
    text: str, overrides: tuple[str, ...] = (), source: str = "settings"
) -> RunConfig:
    """Parse a configuration from YAML text; `source` names it in errors. See `load_config`."""
    data = _parse(text, source)
    if data is not None and not isinstance(data, dict):
        raise ConfigError(f"config {source} must be a mapping of sections, not {_shown(data)}")
    data = data or {}
    if {"archive", "config"} <= data.keys() and isinstance(data["config"], dict):
        data = _as_recorded(data["config"])
    for item in overrides:
        _apply_override(data, item)
    return parse_config(data, source=source)


def override(config: RunConfig, overrides: tuple[str, ...]) -> RunConfig:
    """Return `config` with `section.key=value` strings applied; see `load_config`."""
    data = config.model_dump(mode="json")
    for item in overrides:
        _apply_override(data, item)
    return parse_config(data, source="options")


def parse_config(data: dict[str, Any], source: str = "config") -> RunConfig:
    """Validate a mapping; the `ConfigError` names the key and the nearest known one."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_explain(e) for e in error.errors())
        raise ConfigError(f"{source}: {problems}") from error


def recorded_config(data: dict[str, Any], source: str) -> RunConfig:
    """Read the configuration of a run or a checkpoint, maybe from an earlier version.

    Newer features that would change training are disabled; other new settings use their defaults.
    """
    return parse_config(_as_recorded(data), source)


def _as_recorded(data: dict[str, Any]) -> dict[str, Any]:
    rotation = data.get("rotation", {})
    return {**data, "rotation": {"drift": 0.0, **rotation}} if isinstance(rotation, dict) else data


def _parse(text: str, source: str) -> Any:
    if text.lstrip().startswith("{"):
        # YAML reads the number 1e-05 of a run.json as text.
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"config {source} is not YAML: {one_line(error)}") from error


def _apply_override(data: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {item!r} must have the form section.key=value")
    node = data
    *sections, last = key.split(".")
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {item!r}: {section} is a value, not a section")
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = one_line(error)
        raise ConfigError(f"--set {item!r}: the value is not YAML: {first}") from error


def _explain(error: Any) -> str:
    where = ".".join(str(p) for p in error["loc"]) or "config"
    if error["type"] != "extra_forbidden":
        if error["loc"][:1] == ("job",):
            # The value may hold a key that was put there by mistake.
            return f"{where}: {error['msg']}"
        return f"{where}: {error['msg']} (got {_shown(error['input'])})"
    model: Any = RunConfig
    for part in error["loc"][:-1]:
        model = model.model_fields[part].annotation
    near = difflib.get_close_matches(str(error["loc"][-1]), model.model_fields, n=1, cutoff=0.5)
    known = ", ".join(model.model_fields)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {known}"
    return f"unknown key {where}; {hint}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # Such as a number with thousands of digits, or deeply nested brackets.
        return f"a value of {type(value).__name__} that is too long to show"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
