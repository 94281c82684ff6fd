"""What jobs print: read back as it was told, in both forms, and no key in any of it."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.cluster.job_log import JobLog, parse_line, without_secrets
from ctray.records.events import STAGES, Event

RUN = "s3://bucket/run"
EVENT = Event(
    stage="localize",
    done=3,
    total=7,
    text="scan_03 located",
    bytes_done=11,
    bytes_total=13,
    volume_id="scan_03",
    status="located",
    bytes_read=5,
    bytes_written=2,
)
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")


def printed(event: Event, style: str) -> str:
    stream = io.StringIO()
    JobLog(run=RUN, style=style, job="ctray-run-1", stream=stream).event(event)  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_document_names_run_job_and_volume() -> None:
    document = json.loads(printed(EVENT, "json"))
    assert (document["run"], document["job"]) == (RUN, "ctray-run-1")
    assert (document["volume_id"], document["status"]) == ("scan_03", "located")
    assert document["level"] == "info"


@given(
    stage=st.sampled_from(STAGES),
    done=st.integers(0, 10**9),
    total=st.integers(0, 10**9),
    text=st.text(st.characters(codec="utf-8", exclude_characters="@", categories=("L", "N", "P"))),
    loss=st.floats(0, 10),
)
def test_json_comes_back_as_it_was_told(
    stage: str, done: int, total: int, text: str, loss: float
) -> None:
    event = Event(stage=stage, done=done, total=total, text=text, metrics={"loss": loss})
    line = printed(event, "json")
    assert line.count("\n") == 1
    assert parse_line(line) == event


def test_text_comes_back_without_what_it_leaves_out() -> None:
    line = printed(EVENT, "text")
    assert line == "localize 3/7 scan_03 located\n"
    assert parse_line(line) == Event(stage="localize", done=3, total=7, text="scan_03 located")


@pytest.mark.parametrize(
    "line", ["report s3://x", "4/7 of it", "nostage 3/7 x", "{", '{"message": 3}', "{}", "[1]", ""]
)
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert parse_line(line) == line


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_printed(
    name: str, style: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Characters that JSON writes in another way are in keys too.
    key = 'k/3+"y\\éA12345'
    monkeypatch.setenv(name, key)
    log = JobLog(run=RUN, style=style)  # type: ignore[arg-type]
    log.say(f"wrong key {key} for s3://user:word@bucket/x?X-Amz-Signature=abc123&b=1", "error")
    log.event(Event(stage="localize", done=1, total=1, text=key, volume_id=key))
    told = capsys.readouterr().out
    for part in (key, json.dumps(key)[1:-1], "user:word", "abc123"):
        assert part not in told
    assert told.count("***") >= 4


def test_short_values_are_no_keys() -> None:
    assert without_secrets("a test", {"AWS_ACCESS_KEY_ID": "test"}) == "a test"
