"""What a reader of the page should know of how a box came about."""

from __future__ import annotations

from typing import Any

from ctray.report.text import percent


def box_notes(working: dict[str, Any]) -> list[str]:
    """Sentences about a volume's field of view and its last look, as HTML.

    Parameters
    ----------
    working
        The entry of that name in a receipt.
    """
    notes = []
    kept = (working.get("field_of_view") or {}).get("kept_fraction") or 0
    if kept:
        notes.append(
            f"sample reaches into the container's wall ({percent(kept, 1)} of what stands out); "
            "it was kept in view"
        )
    look = working.get("last_look") or {}
    if look.get("cut_fraction") and not look.get("doubt"):
        pieces = percent(look["cut_fraction"], 1)
        notes.append(f"the box was enlarged: pieces ({pieces} of the sample) went on beyond it")
    return notes
