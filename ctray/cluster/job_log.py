"""The log of a job, and its parser: one line per event, as text or JSON.

A cluster keeps the log, and log collectors read it, so no line may contain a key.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from ctray.core.errors import printable
from ctray.records.events import STAGES, Event

Format = Literal["text", "json"]

_TEXT = re.compile(rf"({'|'.join(STAGES)}) (\d+)/(\d+)(?: (.*))?")
# Variables whose values are removed from every line.
_SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SIGNATURE = re.compile(r"(?i)((?:x-amz-(?:signature|credential|security-token)|sig)=)[^&\s]+")
# Shorter values may be words that occur in any line.
_SHORTEST_SECRET = 8


@dataclass(kw_only=True)
class JobLog:
    """Prints the log of a job.

    Parameters
    ----------
    run
        Run folder; every JSON document names it.
    style
        `text` prints "stage done/total text". `json` prints one document per line with the same,
        run, job, volume, and metrics of training.
    job
        Submission id; empty if the job was not submitted.
    stream
        Stream for the lines.
    """

    run: str
    style: Format = "text"
    job: str = ""
    stream: TextIO = field(default_factory=lambda: sys.stdout)

    def event(self, event: Event) -> None:
        """Print one event."""
        if self.style == "text" and event.stays:
            self._print(event.text)
        elif self.style == "text":
            self._print(f"{event.stage} {event.done}/{event.total} {event.text}".rstrip())
        else:
            self._print_json("info", event.text, **_fields(event))

    def say(self, message: str, level: Literal["info", "error"] = "info") -> None:
        """Print a line about the job as a whole."""
        if self.style == "text":
            self._print(f"error: {message}" if level == "error" else message)
        else:
            self._print_json(level, message)

    def _print_json(self, level: str, message: str, **fields: Any) -> None:
        document = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "run": self.run,
            "job": self.job,
            "message": message,
            **fields,
        }
        # Before encoding as JSON, which escapes some characters of a key.
        self.stream.write(json.dumps(_without_secrets(document)) + "\n")
        self.stream.flush()

    def _print(self, line: str) -> None:
        self.stream.write(printable(without_secrets(line)) + "\n")
        self.stream.flush()


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return `text` without keys of the environment, users in URLs, and request signatures."""
    for name in _SECRETS:
        value = environment.get(name, "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return _SIGNATURE.sub(r"\1***", _USER_IN_URL.sub("***@", text))


def parse_line(line: str) -> Event | str:
    """Parse a line of `JobLog`, text or JSON: an event, or else a line for people."""
    line = line.rstrip("\r\n")
    if line.startswith("{"):
        try:
            return _parse_document(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError):
            return line
    found = _TEXT.fullmatch(line)
    if found is None:
        return line
    stage, done, total, text = found.groups()
    return Event(stage=stage, done=int(done), total=int(total), text=text or "")


_NUMBERS = ("done", "total", "bytes_done", "bytes_total", "bytes_read", "bytes_written")


def _parse_document(document: dict[str, Any]) -> Event | str:
    message = str(document["message"])
    if "stage" not in document:
        return f"error: {message}" if document["level"] == "error" else message
    return Event(
        stage=str(document["stage"]),
        text=message,
        volume_id=str(document.get("volume_id", "")),
        status=str(document.get("status", "")),
        metrics=document.get("metrics", {}),
        stays=bool(document.get("stays")),
        **{name: int(document.get(name, 0)) for name in _NUMBERS},
    )


def _fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event for a document: its count, and what is not empty."""
    fields: dict[str, Any] = {"stage": event.stage, "done": event.done, "total": event.total}
    optional = {name: getattr(event, name) for name in _NUMBERS[2:]}
    optional |= {"volume_id": event.volume_id, "status": event.status}
    optional |= {"metrics": dict(event.metrics), "stays": event.stays}
    return fields | {name: value for name, value in optional.items() if value}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    return value
