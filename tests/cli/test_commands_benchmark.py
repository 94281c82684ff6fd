"""`ctray benchmark`: options that are refused, each with one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ctray.cli import commands_benchmark
from ctray.cli.main import cli
from ctray.phantom.scenes import FAMILIES, REAL_FAMILIES


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ([], "--out"),
        (["--out", "x", "--purpose", "publication"], "publication"),
        (["--out", "x", "--family", "whale"], "whale"),
        (["--out", "x", "--seed", "3"], "--seed"),
        (["--out", "x", "--family", "hybrid"], "--data"),
        (["--out", "x", "--scene", "real"], "--data"),
        (["--out", "x", "--scene", "foggy"], "'foggy'"),
        (["--out", "x", "--count", "0"], "count=0"),
        (["--out", "x", "--size", "8"], "8"),
        (["--out", "x", "--purpose", "final", "--set", "train.steps=3"], "takes no --set"),
        (["--out", "x", "--purpose", "final", "--task", "sorting"], "takes no --set"),
    ],
)
def test_bad_options_are_one_line(
    args: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CTRAY_TEST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["benchmark", "localization", *args], prog_name="ctray")
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert word in errors[0]
    assert not list(tmp_path.iterdir()), "nothing was begun"


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ([], "--out"),
        # Of real scans as they are there are too few to spare any.
        (["--out", "x", "--family", "heads"], "the plan is empty"),
        (["--out", "x", "--family", "hybrid"], "--data"),
        (["--out", "x", "--purpose", "final"], "--purpose"),
    ],
)
def test_calibration_refuses_in_one_line(
    args: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CTRAY_TEST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["benchmark", "calibration", *args], prog_name="ctray")
    assert result.exit_code == 2, result.output
    assert word in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_families_of_the_command_are_those_that_there_are() -> None:
    assert commands_benchmark._FAMILIES == FAMILIES
    assert commands_benchmark._REAL_FAMILIES == REAL_FAMILIES
