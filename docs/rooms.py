"""The picture of the rooms: `python docs/rooms.py` writes `docs/pictures/rooms.svg`.

Floors come from the import contract in `pyproject.toml`, sentences from the packages themselves.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs" / "pictures" / "rooms.svg"
_WIDTH, _HEIGHT, _GAP, _LEFT = 900, 52, 8, 150
# What neighbouring floors have in common, by their highest room.
_GROUPS = {
    "cli": "what people call",
    "pipeline": "a run",
    "evaluate : executors": "work and scores",
    "localization": "the method",
    "records": "what is written down",
    "archive : crops": "volumes in and out",
    "storage : preprocess": "bytes and grey values",
    "config : phantom": "the ground",
}


def floors() -> list[list[str]]:
    """Rooms by floor, the highest first."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [[room.strip() for room in layer.split(":")] for layer in layers]


def sentence(room: str) -> str:
    """First line of the docstring of a room."""
    text = (REPOSITORY / "ctray" / room / "__init__.py").read_text("utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].replace("`", "")


def picture() -> str:
    """The rooms on their floors, as SVG; a room imports from the floors below it only."""
    rows = floors()
    height = len(rows) * (_HEIGHT + _GAP) + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" role="img">',
        "<title>Rooms of ctray: each imports from the floors below it only</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, row in enumerate(rows):
        top = _GAP + number * (_HEIGHT + _GAP)
        group = _GROUPS.get(" : ".join(row))
        if group:
            parts.append(
                f'<text x="12" y="{top + 31}" font-size="12" fill="#5f6b73">{escape(group)}</text>'
            )
        width = (_WIDTH - _LEFT - _GAP * len(row)) / len(row)
        for place, room in enumerate(row):
            left = _LEFT + place * (width + _GAP)
            parts += _room(room, left, top, width)
    return "\n".join([*parts, "</svg>", ""])


def _room(room: str, left: float, top: float, width: float) -> list[str]:
    lines = textwrap.wrap(sentence(room), int((width - 130) / 6.1))
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{_HEIGHT}" rx="5" '
        'fill="#eef4f4" stroke="#2a7f7f"/>',
        f'<text x="{left + 12:g}" y="{top + 31:g}" font-size="15" font-weight="bold" '
        f'fill="#12403f">{room}</text>',
    ]
    first = top + 31 - 7 * (len(lines) - 1)
    for number, line in enumerate(lines):
        parts.append(
            f'<text x="{left + 118:g}" y="{first + 14 * number:g}" font-size="11.5" '
            f'fill="#333333">{escape(line)}</text>'
        )
    return parts


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
