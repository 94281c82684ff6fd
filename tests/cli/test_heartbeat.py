"""Signs of life: nobody waits for a minute without a line, and nobody is told twice."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ctray.cli import options
from ctray.cli.heartbeat import Heartbeat
from ctray.cli.options import say, shared_options
from ctray.cli.progress import Reporter, reporter

SOON = 0.02


class Beats:
    """Beats of a heartbeat; `wait` returns once so many came."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._came = threading.Semaphore(0)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._came.release()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._came.acquire(timeout=60)


def test_silence_is_broken_again_and_again() -> None:
    beats = Beats()
    with Heartbeat(beats, every_s=SOON):
        beats.wait(3)
    told = beats.seconds[:3]
    assert told == sorted(told)
    assert told[0] >= SOON
    assert told[2] >= 3 * SOON


def test_what_is_said_begins_the_wait_anew() -> None:
    beats = Beats()
    with Heartbeat(beats, every_s=0.2) as heartbeat:
        beats.wait(2)
        heartbeat.said()
        count = len(beats.seconds)
        beats.wait(1)
    assert beats.seconds[count] < beats.seconds[count - 1]


def test_nothing_beats_after_the_end() -> None:
    beats = Beats()
    with Heartbeat(beats, every_s=3600.0):
        pass
    assert beats.seconds == []


def test_a_log_repeats_its_latest_line() -> None:
    stream = io.StringIO()
    shown = Reporter(stream, None)
    shown.note("looking for volumes")
    shown.heartbeat._beat(30.0)
    shown.update("prepare", 0, 6)
    shown.heartbeat._beat(31.0)
    # Too soon for a line of its own, and known all the same.
    shown.update("prepare", 1, 6, "scan_1")
    shown.heartbeat._beat(60.4)
    assert stream.getvalue().splitlines() == [
        "looking for volumes",
        "looking for volumes; still working after 30 s",
        "prepare: 0/6 volumes",
        "prepare: 0/6 volumes; still working after 31 s",
        "prepare: 1/6 volumes; still working after 60 s",
    ]


def test_every_stage_begins_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter() as shown:
        shown.update("pretrain", 0, 1500)
        shown.update("pretrain", 25, 1500)
        shown.update("self-train", 0, 800)
    assert capsys.readouterr().err.splitlines() == [
        "pretrain: 0/1,500 steps",
        "self-train: 0/800 steps",
    ]


def test_progress_is_seen_while_the_process_is_quiet() -> None:
    """Ray's start sends file descriptor 2 to nowhere; what waits for it must not be silent."""
    code = (
        "import os\n"
        "from ctray.cli.progress import reporter\n"
        "with reporter() as shown:\n"
        "    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)\n"
        "    shown.note('starting Ray')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "starting Ray\n"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_FIRST_LINE_S", SOON)


def invoke(work: Any) -> str:
    @click.command(name="work")
    @shared_options()
    def command(as_json: bool) -> None:
        work()

    return CliRunner().invoke(command, prog_name="ctray work").stderr


@pytest.mark.usefixtures("impatient")
def test_a_slow_command_says_that_it_starts() -> None:
    seen = threading.Event()

    def wait() -> None:
        for thread in threading.enumerate():
            if thread.name == "ctray-first-line":
                thread.join(60)
        seen.set()

    assert invoke(wait) == "ctray work: starting\n"
    assert seen.is_set()


def test_a_quick_command_says_nothing() -> None:
    assert invoke(lambda: None) == ""


@pytest.mark.usefixtures("impatient")
def test_a_command_that_speaks_says_it_once() -> None:
    def speak() -> None:
        say("submitted")
        for thread in threading.enumerate():
            if thread.name == "ctray-first-line":
                thread.join(60)

    assert invoke(speak) == "submitted\n"
