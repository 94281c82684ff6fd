"""What the commands that work on a run share: its lock, its first checks, and its summary."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ctray.cli.options import echo, print_json, say
from ctray.core.errors import PartialFailureError

if TYPE_CHECKING:
    from ctray.archive.catalog import Catalog
    from ctray.config import RunConfig
    from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord

_STATUSES = ("located", "empty", "uncertain", "failed")


def look_first(archive: str, out: str, settings: RunConfig, progress: Any) -> Catalog | None:
    """Find the volumes of an archive for a new run; None if the run exists.

    Bad archives and outputs are refused here, before torch and Ray are loaded. Loading takes
    seconds, and half a minute on a busy machine.
    """
    from ctray.pipeline.find_volumes import find_archive
    from ctray.records.run_folder import RunFolder, check_output
    from ctray.storage import store

    check_output(archive, out)
    progress.note(f"looking for volumes in {archive}")
    if store.exists(RunFolder(url=store.normalize(out)).manifest):
        return None
    return find_archive(archive, settings, progress)


def make_run(
    archive: str, out: str, given: RunConfig, progress: Any, found: Catalog | None
) -> tuple[RunFolder, Sequence[VolumeRecord]]:
    """Do a whole run, with the settings of the run and `given` on top."""
    from ctray.pipeline.run import run_archive
    from ctray.pipeline.taking_up import settings_for

    return run_archive(archive, out, settings_for(out, given), progress, found, progress.note)


@contextmanager
def held_output(archive: str, out: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Check the output and lock its run for the block."""
    from ctray.records.run_folder import check_output
    from ctray.records.run_lock import hold_run

    check_output(archive, out)
    with hold_run(out, on_wait=on_wait):
        yield


@contextmanager
def held_run(run_url: str, on_wait: Callable[[str], None] = say) -> Iterator[None]:
    """Lock a run for the block, if it exists; the block itself refuses a run that does not."""
    from ctray.records.run_lock import hold_run
    from ctray.storage import store

    if store.exists(run_url):
        with hold_run(run_url, on_wait=on_wait):
            yield
    else:
        yield


def asked_settings(specimens: bool, keep_surround: bool) -> tuple[str, ...]:
    """Return the `--set` form of flags. Values of `--set` itself come later and win."""
    asked = {"localize.specimens=true": specimens, "crop.keep_surround=true": keep_surround}
    return tuple(text for text, given in asked.items() if given)


def run_facts(
    folder: RunFolder, receipts: Sequence[VolumeRecord], *, report: bool
) -> dict[str, Any]:
    """Return counts, sizes and places of a run for its summary; `report`: its page was written."""
    from ctray.report.summary import summarize_run
    from ctray.storage import store

    summary = summarize_run(folder)
    sizes = summary.sizes()
    counts: Counter[str] = Counter()
    failed: list[VolumeRecord] = []
    cropped = False
    for receipt in receipts:  # one pass: each receipt is read from the store
        counts[receipt.status] += 1
        cropped = cropped or bool(receipt.crop_boxes)
        failed += [receipt] if receipt.status == "failed" else []
    return {
        "run": folder.url,
        "counts": {s: counts[s] for s in _STATUSES if s in counts},
        "bytes_before": sizes.before,
        "bytes_after": sizes.after if cropped else None,
        "saved": sizes.saved if cropped else None,
        "promises": summary.promises,
        "not_calibrated": summary.not_calibrated,
        "boxes": folder.localizations if store.exists(folder.localizations) else None,
        "crops": folder.at("crops") if cropped else None,
        "report": folder.report if report else None,
        "coverage": summary.coverage,
        **failures_of(failed),
    }


def finish(facts: dict[str, Any], as_json: bool) -> None:
    """Print the summary; exit with 3 if volumes failed."""
    from ctray.cli.tables import run_lines

    if as_json:
        print_json(facts)
    else:
        for line in run_lines(facts):
            echo(line)
    end(facts["failed"], sum(facts["counts"].values()))


def failures_of(failed: Iterable[VolumeRecord]) -> dict[str, list[dict[str, Any]]]:
    """Return id, source and reason of failed volumes, as facts of a summary."""
    return {
        "failed": [
            {"volume_id": r.volume_id, "source_url": r.source_url, "reason": r.reason}
            for r in failed
        ]
    }


def end(failed: Sequence[dict[str, Any]], total: int) -> None:
    """Name the failed volumes, one line each, and exit with 3 if there are any."""
    for failure in failed:
        say(f"failed {failure['volume_id']}: {failure['reason']}")
    if failed:
        say(
            f"{len(failed)} of {total} volumes failed; repair them and delete their receipts to "
            "try again"
        )
        sys.exit(PartialFailureError.exit_code)
