"""What a job prints, and how whoever follows it reads that: one line an event, text or JSON.

A cluster keeps the output of its jobs, and log collectors read it: no line may hold a key.
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
# Variables whose values must not be seen, whatever is printed.
_SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SIGNATURE = re.compile(r"(?i)((?:x-amz-(?:signature|credential|security-token)|sig)=)[^&\s]+")
# Shorter values may be words, which would be cut out of every line.
_SHORTEST_SECRET = 8


@dataclass(kw_only=True)
class JobLog:
    """Prints the events of a job.

    Parameters
    ----------
    run
        Folder of the run; every JSON document names it.
    style
        `text`: "stage done/total what"; `json`: one document a line with the same, run, job and
        volume, and the metrics of training steps.
    job
        Submission id, empty for a job that nobody submitted.
    stream
        Where to.
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
        # Before it becomes JSON, which would write some characters of a key in another way.
        self.stream.write(json.dumps(_without_secrets(document)) + "\n")
        self.stream.flush()

    def _print(self, line: str) -> None:
        self.stream.write(printable(without_secrets(line)) + "\n")
        self.stream.flush()


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` without the keys of the environment, users in URLs and signatures of requests."""
    for name in _SECRETS:
        value = environment.get(name, "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return _SIGNATURE.sub(r"\1***", _USER_IN_URL.sub("***@", text))


def parse_line(line: str) -> Event | str:
    """Read what `JobLog` printed: an event of either form, else the line as people read it."""
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
    """What a document says of an event; nothing that is empty, but its count always."""
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
