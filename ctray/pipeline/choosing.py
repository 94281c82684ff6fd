"""The choice of volumes to train on and to hold out, and the ids of a run's known volumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ctray.archive.catalog import Catalog, CatalogEntry, read_catalog
from ctray.archive.volume_ids import same_file
from ctray.config import RunConfig
from ctray.pipeline.volume_work import PreparedRecord
from ctray.records.run_folder import RunFolder
from ctray.storage import store


def training_ids(entries: Sequence[CatalogEntry], config: RunConfig) -> set[str]:
    """Ids of the volumes to train on: all of a small archive, a seeded choice of a large one."""
    ids = [entry.volume_id for entry in entries]
    if len(ids) <= config.train.max_volumes:
        return set(ids)
    rng = np.random.default_rng([config.train.seed, len(ids)])
    return {ids[i] for i in rng.choice(len(ids), config.train.max_volumes, replace=False)}


def hold_out(records: list[PreparedRecord], config: RunConfig) -> list[PreparedRecord]:
    """Records, with a seeded choice marked as held out; at least one record is not held out."""
    count = min(round(config.train.validation_fraction * len(records)), len(records) - 1)
    if count < 1:
        return records
    rng = np.random.default_rng([config.train.seed, len(records), 1])
    chosen = set(rng.choice(len(records), count, replace=False).tolist())
    return [replace(r, validation=True) if i in chosen else r for i, r in enumerate(records)]


def with_known_ids(found: Catalog, run: RunFolder) -> Catalog:
    """Catalog of an archive; volumes that the run already knows keep their ids."""
    if not store.exists(run.catalog):
        return found
    return replace(found, entries=keep_ids(read_catalog(run.catalog), found.entries))


def keep_ids(
    known: Sequence[CatalogEntry], found: Sequence[CatalogEntry]
) -> tuple[CatalogEntry, ...]:
    """Entries with the ids of an earlier catalog; new volumes get unused ids."""
    ids = {(e.url, e.dataset): e.volume_id for e in known}
    # The entry of an unreadable file has no dataset. The file is the same volume after a repair.
    broken = {e.url: e.volume_id for e in known if e.status == "failed"}
    anyhow = {e.url: e.volume_id for e in known}
    taken = {same_file(volume_id) for volume_id in ids.values()}
    kept = []
    for entry in found:
        volume_id = ids.get((entry.url, entry.dataset)) or (
            anyhow if entry.status == "failed" else broken
        ).get(entry.url)
        if volume_id is None:
            volume_id = next(v for v in _variants(entry.volume_id) if same_file(v) not in taken)
            taken.add(same_file(volume_id))
        kept.append(replace(entry, volume_id=volume_id))
    return tuple(kept)


def _variants(volume_id: str) -> Iterator[str]:
    yield volume_id
    number = 2
    while True:
        yield f"{volume_id}_{number}"
        number += 1
