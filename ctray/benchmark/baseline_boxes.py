"""The baselines' boxes in the folder of a benchmark, so that they are computed only once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from ctray.config import RunConfig
from ctray.core.errors import NotFoundError
from ctray.core.geometry import Box
from ctray.evaluate.against_truth import find_baselines
from ctray.evaluate.baselines import BaselineResult
from ctray.evaluate.truth import Truth
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

OnBaselines = Callable[[int, int], None]


def kept_baselines(
    url: str,
    receipts: Sequence[VolumeRecord],
    truths: dict[str, Truth],
    config: RunConfig,
    on_baselines: OnBaselines,
) -> list[BaselineResult]:
    """Return the boxes of the baselines on one group, from `url` if they are there.

    Thresholds are chosen per group, that is for one family in one scene. No user could do better
    with these methods.
    """
    ids = [r.volume_id for r in receipts if r.cut_url is not None]
    key = hashlib.sha256(
        json.dumps([ids, config.preprocess.model_dump(mode="json")]).encode()
    ).hexdigest()
    try:
        document = store.read_json(url)
    except NotFoundError:
        document = {}
    if document.get("key") != key:
        found = find_baselines(receipts, truths, config.preprocess, progress=on_baselines)
        document = {"key": key, "results": [_baseline_json(r) for r in found]}
        store.write_json(url, document)
    return [_baseline(values) for values in document["results"]]


def _baseline_json(result: BaselineResult) -> dict[str, Any]:
    boxes = {name: box.ranges if box else None for name, box in result.boxes.items()}
    return {
        "method": result.method,
        "supervised": result.supervised,
        "variant": result.variant,
        "boxes": boxes,
        "thresholds": result.thresholds,
    }


def _baseline(values: dict[str, Any]) -> BaselineResult:
    boxes = {n: Box.from_ranges(b) if b else None for n, b in values["boxes"].items()}
    return BaselineResult(**{**values, "boxes": boxes})
