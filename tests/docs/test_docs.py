"""README and documentation: links lead somewhere, commands exist, examples run, pages build."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

import ctray
from ctray.cli.main import cli
from ctray.core.geometry import Box
from ctray.phantom import Phantom
from ctray.volumes.writer import create_volume

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)


def commands(page: Path) -> Iterator[str]:
    """Every call of ctray on a page: in its shell blocks and within its sentences."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;", line.partition(" #")[0]):
                if re.match(r"\s*(\.venv/bin/)?ctray ", part):
                    yield part.strip().removeprefix(".venv/bin/")
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
    yield from (" ".join(c.split()) for c in re.findall(r"`(ctray [a-z][^`]*)`", text))


ALL_COMMANDS = sorted({(page.name, c) for page in PAGES for c in commands(page)})


@pytest.mark.parametrize(("page", "command"), ALL_COMMANDS)
def test_commands_and_their_options_exist(page: str, command: str) -> None:
    words = shlex.split(command)[1:]
    here: click.Command = cli
    while isinstance(here, click.Group) and words:
        found = here.get_command(click.Context(here), words[0])
        assert found is not None, f"{page}: {command}: no command {words[0]}"
        here, words = found, words[1:]
    context = click.Context(here, info_name=command)
    try:
        here.make_parser(context).parse_args(words)
    except click.UsageError as error:
        pytest.fail(f"{page}: {command}: {error.format_message()}")


def test_commands_are_found_on_the_pages() -> None:
    assert len(ALL_COMMANDS) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    made = {"reference/command-line.md", "reference/configuration.md", "reference/python.md"}
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path = target.partition("#")[0]
        if not path or re.match(r"[a-z]+:", path) or path in made:
            continue
        assert (page.parent / path).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_documentation_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for name in ("index", "reference/command-line", "reference/configuration", "reference/python"):
        html = (tmp_path / "site" / f"{name}.html").read_text("utf-8")
        # Nothing is fetched from another host when somebody opens a page.
        assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"', html)


def test_readme_fits_on_a_page() -> None:
    assert len((REPOSITORY / "README.md").read_text("utf-8").splitlines()) <= 120


def test_example_of_the_readme_runs(
    tmp_path: Path,
    trained_url: str,
    phantom_of: Callable[..., Phantom],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (code,) = blocks(REPOSITORY / "README.md", "python")
    voxels = phantom_of(20, size=32).volume
    url = str(tmp_path / "scan.zarr")
    writer = create_volume(url, shape=voxels.shape, dtype=voxels.dtype, voxel_size=None)
    writer.write(Box.whole(voxels.shape), voxels)
    writer.build_pyramid()
    writer.commit({})
    monkeypatch.chdir(tmp_path)
    code = code.replace("s3://bucket/scan.zarr", "scan.zarr")
    code = code.replace("scans-ctray/checkpoint", trained_url)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - our own example
    assert ctray.open_volume("crop.zarr").shape


def test_architecture_names_every_room() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    rooms = {p.parent.name for p in (REPOSITORY / "ctray").glob("*/__init__.py")}
    told = set(re.findall(r"^\| \d+ \| `(\w+)/` \|", text, re.M))
    assert told == rooms
    for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml|j2|toml))`", text):
        places = (REPOSITORY / "ctray" / path, REPOSITORY / path)
        assert any(p.exists() for p in places), f"architecture names {path}"


def test_picture_of_the_rooms_is_that_of_today() -> None:
    spec = importlib.util.spec_from_file_location("rooms", REPOSITORY / "docs" / "rooms.py")
    assert spec
    assert spec.loader
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    assert rooms.PICTURE.read_text("utf-8") == rooms.picture(), "run: python docs/rooms.py"


@pytest.mark.slow
def test_tutorial_runs_from_start_to_end(tmp_path: Path) -> None:
    """Its commands in their order, with a training of a few steps."""
    short = "--local --set train.steps=9 --set self_train.steps=6 --set crop.margin=0.1"
    loose = (
        "--set localize.min_peak=0 --set self_train.min_peak=-9 --set self_train.min_agreement=0"
    )
    quick = f" {short} {loose} --set localize.last_look=off --set self_train.clear_faces=off"
    for block in blocks(REPOSITORY / "docs" / "tutorial.md", "sh"):
        for line in block.splitlines():
            words = shlex.split(line + (quick if line.startswith("ctray run") else ""))
            run = [sys.executable, "-c", "from ctray.cli.main import main; main()", *words[1:]]
            done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"
    assert (tmp_path / "run" / "report" / "index.html").exists()
    assert (tmp_path / "restored.zarr" / "zarr.json").exists()
