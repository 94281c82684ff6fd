"""Reference pages that come from the code itself, made whenever the documentation is built."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ctray.cli.main import cli
from ctray.config import RunConfig

_MADE_HERE = "Generated from the code."


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those that were written."""
    pages = {
        "reference/command-line.md": command_line(),
        "reference/configuration.md": configuration(),
        "reference/python.md": python(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def command_line() -> str:
    """Every command with its help and its options."""
    lines = ["# Command line", "", _MADE_HERE, ""]
    for name, command in _commands(cli, "ctray"):
        context = click.Context(command, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"## {name}", "", f"```text\n{name} {usage}\n```", "", _help_of(command), ""]
        rows = [
            record for p in command.get_params(context) if (record := p.get_help_record(context))
        ]
        if rows:
            lines += ["| option | meaning |", "|---|---|"]
            lines += [f"| {_code(option)} | {_cell(text)} |" for option, text in rows]
            lines.append("")
    return "\n".join(lines)


def _commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _help_of(command: click.Command) -> str:
    paragraphs = (command.help or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(_plain(" ".join(p.split())) for p in paragraphs)


def configuration() -> str:
    """Every section of the configuration with its settings, their defaults and their limits."""
    lines = ["# Configuration", "", _MADE_HERE, ""]
    lines += [
        "Give settings in a YAML file (`--config FILE`) or one by one (`--set section.key=value`).",
        "The defaults below are those of the rotation task; the sorting task has some of its own.",
        "",
    ]
    fields = RunConfig.model_fields
    plain = {n: f for n, f in fields.items() if not _is_section(f)}
    lines += ["## Top level", "", *_table("", plain), ""]
    for name, field in fields.items():
        if _is_section(field):
            section: type[BaseModel] = typing.cast(Any, field.annotation)
            about = (section.__doc__ or "").strip().split("\n\n")[0]
            lines += [f"## {name}", "", " ".join(about.split()), ""]
            lines += [*_table(f"{name}.", section.model_fields), ""]
    return "\n".join(lines)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _table(prefix: str, fields: dict[str, FieldInfo]) -> list[str]:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        text = " ".join((field.description or "").split())
        limits = ", ".join(_limits(field))
        meaning = f"{text} Limits: {limits}." if limits else text
        lines.append(f"| `{prefix}{name}` | {_code(_default(field))} | {_cell(meaning)} |")
    return lines


def _limits(field: FieldInfo) -> Iterator[str]:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for limit in field.metadata:
        for name, sign in signs.items():
            if (value := getattr(limit, name, None)) is not None:
                yield f"{sign} {value}"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(str(v) for v in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def python() -> str:
    """The public names of the package `ctray`."""
    import ctray

    lines = ["# Python", "", "Everything that `import ctray` offers. Ray is not needed.", ""]
    for name in ctray.__all__:
        if not name.startswith("__"):
            target = getattr(ctray, name)
            lines += [f"::: {target.__module__}.{target.__name__}", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")


def _code(text: str) -> str:
    return "`" + " ".join(text.split()).replace("|", "\\|") + "`"


def _plain(text: str) -> str:
    """Text in which Markdown sees no link and no HTML."""
    return text.replace("[", "\\[").replace("<", "&lt;")
