"""Names of volumes at the edge: none steers a terminal or ends a command; which are taken."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from rich.table import Table

from ctray.archive.catalog import build_catalog, write_catalog
from ctray.cli import tables
from ctray.cli.main import cli
from ctray.cli.progress import Reporter
from ctray.cluster.job_log import JobLog, parse_line
from ctray.core.errors import printable
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.report import write_report

VOLUME = np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8)
# Colour, window title, clipboard, text that runs backwards, markup of the table's printer.
NASTY = "\x1b[31mred\x1b]0;title\x07\x1b]52;c;aGk=\x07\u202e[bold]\x9b2J[/nope]"


def ctray(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args], prog_name="ctray")


def assert_harmless(text: str) -> None:
    assert not {c for c in text if not c.isprintable() and c != "\n"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    tifffile.imwrite(folder / f"{NASTY}.tif".replace("/", "."), VOLUME, photometric="minisblack")
    tifffile.imwrite(folder / "good.tif", VOLUME, photometric="minisblack")
    (folder / "bad\x1b[2J.tif").write_bytes(b"words")
    (folder / "other\x1b[2J.ims").write_bytes(b"words")
    tifffile.imwrite(folder / "flat\x1b[2J.tif", VOLUME[0], photometric="minisblack")
    tifffile.imwrite(folder / "mask_\x1b[2J.tif", VOLUME, photometric="minisblack")
    return folder


@pytest.fixture
def run(archive: Path, tmp_path: Path) -> RunFolder:
    """A run over that archive, with receipts as an older version may have written them."""
    folder = RunFolder(url=str(tmp_path / "run"))
    catalog = build_catalog(str(archive))
    write_catalog(catalog, folder.catalog)
    Path(folder.manifest).write_text(json.dumps({"archive": str(archive)}))
    for entry in catalog:
        reason = f"{entry.url} is damaged"
        receipt = VolumeRecord(
            volume_id=entry.volume_id,
            source_url=entry.url,
            status="failed",
            reason=reason,
            notes=f"2 slices missing in {NASTY}",
        )
        folder.write_receipt(receipt)
    return folder


def test_printable() -> None:
    assert printable("scan 1, µm, 昆虫") == "scan 1, µm, 昆虫"
    assert printable("\x1b[31m\x07\n\u202e") == "\\x1b[31m\\x07\\n\\u202e"
    assert printable("a\nb\tc\x1b", keep="\n\t") == "a\nb\tc\\x1b"
    assert_harmless(printable(NASTY))


def test_catalog_shows_names_and_obeys_none(archive: Path) -> None:
    result = ctray("catalog", archive)
    assert result.exit_code == 0, result.output
    assert_harmless(result.stdout)
    assert_harmless(result.stderr)
    assert "bad\\x1b[2J.tif" in result.stderr
    assert "other\\x1b[2J.ims" in result.stderr
    assert "flat\\x1b[2J.tif" in result.stderr
    assert "mask_\\x1b[2J.tif" in result.stderr
    # Programs get the names as they are.
    document = json.loads(ctray("catalog", archive, "--json").stdout)
    assert str(archive / "bad\x1b[2J.tif") in {v["url"] for v in document["volumes"]}
    assert document["other_formats"][0]["example"] == str(archive / "other\x1b[2J.ims")


def test_receipts_show_names_and_obey_none(run: RunFolder) -> None:
    for more in ((), ("--csv",)):
        result = ctray("receipts", run.url, *more)
        assert result.exit_code == 0, result.output
        assert_harmless(result.output)
        assert "\\x1b[2J" in result.stdout
    rows = json.loads(ctray("receipts", run.url, "--json").stdout)["receipts"]
    assert any("\x1b" in row["source_url"] for row in rows)
    assert rows[0]["notes"]


def test_the_page_shows_names_and_what_is_not_in_the_run(run: RunFolder) -> None:
    page = Path(write_report(run)).read_text(encoding="utf-8")
    assert_harmless(page)
    assert "Not in this run" in page
    assert "1 Imaris (.ims)" in page
    assert "flat\\x1b[2J.tif" in page
    assert "2 slices missing" in page


def test_errors_show_names_and_obey_none(tmp_path: Path) -> None:
    result = ctray("catalog", tmp_path / "no\x1b[2Jwhere")
    assert result.exit_code == 1
    assert_harmless(result.output)
    assert "no\\x1b[2Jwhere" in result.stderr


def test_logs_show_names_and_obey_none() -> None:
    stream = io.StringIO()
    log = JobLog(run="run", stream=stream)
    log.event(Event(stage="localize", done=1, total=2, text=NASTY))
    log.say(NASTY)
    assert_harmless(stream.getvalue())


def test_a_line_that_stays_is_told_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    event = Event(stage="catalog", done=3, total=3, text=f"note on a: {NASTY}", stays=True)
    Reporter(sys.stderr, None)(event)
    assert capsys.readouterr().err == f"note on a: {printable(NASTY)}\n"
    for style in ("text", "json"):
        stream = io.StringIO()
        JobLog(run="run", style=style, stream=stream).event(event)
        back = parse_line(stream.getvalue())
        text = back.text if isinstance(back, Event) else back
        assert text.startswith("note on a: ")
        assert not isinstance(back, Event) or back.stays


def test_a_line_of_progress_obeys_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    # Whoever follows a job takes stage and text from its log, where anybody may write.
    Reporter(sys.stderr, None)(Event(stage=f"look {NASTY}", done=1, total=1, text=NASTY))
    shown = capsys.readouterr().err
    assert printable(NASTY) in shown
    assert_harmless(shown)


def test_brackets_in_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = tables._plain_table("volume", "why")
    assert isinstance(table, Table)
    table.add_row("[red]a[/red]", "[/] :smile:")
    tables.print_table(table)
    assert "[red]a[/red]" in (shown := capsys.readouterr().out)
    assert "[/] :smile:" in shown


# --- which names are taken ----------------------------------------------------------------------


def names_archive(tmp_path: Path) -> Path:
    folder = tmp_path / "names"
    folder.mkdir()
    for name in ("good", "good_mask", "odd"):
        tifffile.imwrite(folder / f"{name}.tif", VOLUME, photometric="minisblack")
    return folder


def test_plan_takes_names_as_catalog_does(tmp_path: Path) -> None:
    archive = names_archive(tmp_path)

    def planned(*more: str) -> int:
        result = ctray("plan", archive, "--sample", "1", "--json", *more)
        assert result.exit_code == 0, result.output
        return int(json.loads(result.stdout)["num_volumes"])

    assert planned() == 2
    assert planned("--no-exclude") == 3
    assert planned("--exclude", "odd*") == 2
    assert planned("--exclude", "odd*", "--exclude", "*_mask*") == 1
    assert planned("--include", "odd*") == 1
    # What --set says comes later and wins.
    assert planned("--include", "odd*", "--set", "catalog.include=[]") == 2
    said = ctray("plan", archive, "--sample", "1", "--exclude", "odd*").stdout
    assert "1 excluded by the given patterns, such as odd.tif" in said


@pytest.mark.parametrize("command", ["run", "pretrain", "archive", "plan"])
def test_names_are_taken_wherever_an_archive_is_named(tmp_path: Path, command: str) -> None:
    """Patterns that leave nothing are refused as such, before anything is begun."""
    archive = names_archive(tmp_path)
    out = () if command == "plan" else ("--out", tmp_path / "run")
    result = ctray(command, archive, *out, "--exclude", "*")
    assert result.exit_code == 1
    assert "no volumes" in result.stderr
    assert "excluded by the given patterns" in result.stderr
    both = ctray(command, archive, *out, "--exclude", "*", "--no-exclude")
    assert both.exit_code == 2
    assert "not both" in both.stderr


def test_jobs_take_names_too(tmp_path: Path) -> None:
    archive = names_archive(tmp_path)
    told = ctray(
        *("submit", "archive", "--kube", "--archive", archive, "--out", tmp_path / "run"),
        *("--exclude", "odd*", "--include", "[a-z]*"),
    )
    assert told.exit_code == 0, told.output
    assert "odd*" in told.stdout
    assert "[a-z]*" in told.stdout
