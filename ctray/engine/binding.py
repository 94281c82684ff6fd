"""Which settings bind a run: what a rerun may change, and what would make it another run."""

from __future__ import annotations

from typing import Any

# What a rerun may change without making its results those of another run.
_FREE_SECTIONS = {"pool", "ray", "job", "kube"}
FREE_TRAIN_FIELDS = {"num_workers", "num_readers", "num_gpus_per_worker", "log_every"}


def changed_settings(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Names of the settings, `section.key`, that bind a run and differ."""
    changed = []
    for section, value in ours.items():
        if section in _FREE_SECTIONS:
            continue
        if not isinstance(value, dict):
            changed += [section] if theirs[section] != value else []
            continue
        free = FREE_TRAIN_FIELDS if section == "train" else set()
        keys = sorted(value.keys() - free)
        changed += [f"{section}.{key}" for key in keys if value[key] != theirs[section][key]]
    return changed
