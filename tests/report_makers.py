"""Receipts, pictures and pages for the tests of the report."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from ctray.core.geometry import Box
from ctray.phantom import make_phantom, preset
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView
from ctray.records.box_table import write_localizations
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.report import write_report

SHAPE = (96, 80, 64)
FACTOR = 4
BOX = [[20, 60], [16, 48], [12, 40]]
CROP = [[16, 64], [12, 52], [8, 44]]
HOSTILE = "\"><script>alert(1)<&script> 'x' %41#y"
VOID = {"meta", "img", "line", "br", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + " "

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs.get(name) or "" for t, attrs in self.tags if t == tag and name in attrs]


def located(volume_id: str, confidence: float = 0.5, **changes: Any) -> VolumeRecord:
    bump = [0.9 if 5 <= i < 15 else 0.15 for i in range(24)]
    stretch = {"threshold": 0.2, "background": 0.15, "confidence": [confidence, 0.9]}
    values: dict[str, Any] = {
        "volume_id": volume_id,
        "source_url": f"/archive/{volume_id}",
        "status": "located",
        "method": "rotation",
        "model_digest": "ab" * 32,
        "sample_box": Box.from_ranges(BOX),
        "crop_box": Box.from_ranges(CROP),
        "confidence": confidence,
        "face_confidence": [0.9, 0.9, confidence, 0.9, 0.9, 0.9],
        "shape": list(SHAPE),
        "dtype": "uint16",
        "voxel_size_um": [2.0, 2.0, 2.0],
        "bytes_total": 2 * 96 * 80 * 64,
        "bytes_written": 123_456,
        "profiles": {name: bump[: n // FACTOR] for name, n in zip("zyx", SHAPE, strict=True)},
        "stretches": {
            name: {"range": [a // FACTOR, b // FACTOR], **stretch}
            for name, (a, b) in zip("zyx", BOX, strict=True)
        },
        "working": {
            "shape": [n // FACTOR for n in SHAPE],
            "factors": [FACTOR] * 3,
            "field_of_view": FieldOfView(
                circle=Cylinder(center_y=9.5, center_x=7.5, radius=7.0)
            ).to_json(),
        },
    }
    return VolumeRecord(**{**values, **changes})


def without_box(volume_id: str, status: str, reason: str) -> VolumeRecord:
    nothing = dict.fromkeys(("sample_box", "crop_box", "confidence", "face_confidence"))
    return located(volume_id, **nothing, status=status, reason=reason, stretches={}, profiles={})


def pictures(seed: int = 0) -> dict[str, Any]:
    volume = make_phantom(preset("easy", seed=seed, size=24)).volume
    volume = (volume.astype(float) * (255 / volume.max())).astype(np.uint8)[:, :20, :16]
    made = {f"slice-{n}": np.take(volume, 8, axis=a) for a, n in enumerate("zyx")}
    return made | {f"projection-{n}": volume.max(axis=a) for a, n in enumerate("zyx")}


def fill(run: RunFolder, *receipts: VolumeRecord, with_pictures: bool = True) -> None:
    for receipt in receipts:
        if with_pictures:
            run.write_preview(receipt.volume_id, pictures())
        run.write_receipt(receipt)
    write_localizations(run.localizations, list(receipts))


def page_of(run: RunFolder, **options: int) -> Page:
    url = write_report(run, **options)
    assert url == run.report
    return Page(Path(url).read_text(encoding="utf-8"))
