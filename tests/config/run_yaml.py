"""Writes `configs/run.yaml` from the docstrings of the settings.

`python tests/config/run_yaml.py` in the root of the repository.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from ctray.config import RunConfig
from ctray.config.section import Section

PATH = Path(__file__).parents[2] / "configs" / "run.yaml"
_HEAD = (
    "All settings of a run with their defaults: `ctray run ARCHIVE --out RUN --config FILE`. Copy "
    "the lines that you change; all others keep their defaults. `--set section.key=value` changes "
    "a single setting. Unknown keys are refused. This file is made from ctray/config by "
    "tests/config/run_yaml.py."
)
_WIDTH = 100


def render() -> str:
    """The text of `run.yaml`: every setting with its default, below its description."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _comment(_HEAD)
    defaults = RunConfig().model_dump(mode="json")
    for name, field in RunConfig.model_fields.items():
        yield ""
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            yield from _setting(name, field, defaults[name])
            continue
        yield from _comment(section.__doc__ or "")
        yield f"{name}:"
        for key, inner in section.model_fields.items():
            yield from _setting(key, inner, defaults[name][key], "  ")


def _setting(name: str, field: FieldInfo, value: Any, indent: str = "") -> Iterator[str]:
    yield from _comment(field.description or "", indent)
    yield f"{indent}{name}: {_plain(value)}"


def _comment(text: str, indent: str = "") -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent=mark, subsequent_indent=mark,
        break_on_hyphens=False,
    )  # fmt: skip


def _plain(value: Any) -> str:
    """A value as YAML on one line; text without quotes where it needs none."""
    text = json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(_plain(v) for v in value)}]"
    return value if isinstance(value, str) and yaml.safe_load(value) == value else text


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
